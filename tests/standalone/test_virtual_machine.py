"""A virtual machine whose wire leads through the switch, a firewall and a VPN gateway."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from machine_lab import PORT, Wired, interrupt, lacks, made_image
from mesh_lab import Lab, is_gone, until
from tiny_machine import MachineError

ROOT = Path(__file__).parents[2]
CORPORATE = "10.20.0.1"
PATIENCE = 90
"""Seconds: a machine that is interpreted has its share of a busy host, no more."""
CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, HOST_TSO6, MRG_RXBUF, MQ = 0, 1, 7, 11, 12, 15, 22
"""VIRTIO_NET_F_..., by their bits."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(lacks()), reason=f"virtual machines: {lacks()}"),
]


@pytest.fixture(scope="module")
def wired(tmp_path_factory):
    """Give a mesh with the example's client; its machine boots with the first test that needs it."""
    made_image()
    with Lab("vm") as lab:
        lab.up("--forwarders", "linux,ovs")
        examples = [str(ROOT / "examples" / name) for name in ("secure-intranet", "virtual-machine")]
        lab.nsm("apply", "-f", examples[0], "-f", examples[1]).ok()
        one = Wired(lab, tmp_path_factory.mktemp("m"))
        try:
            yield one
        finally:
            one.machine.kill()


def test_a_machine_reaches_the_company_through_firewall_and_gateway(wired):
    """What the firewall lets pass comes back, what it does not is refused, and the path says why."""
    machine = wired.up()
    assert wired.row["mechanism"] == "VHOST_USER"
    path = [hop for hop in wired.row["path"] if not hop.startswith("nsmgr")]
    mesh = wired.lab.mesh
    assert path == ["machine", f"ovs-forwarder-{mesh}", "firewall", f"forwarder-{mesh}", "vpn-gateway"]
    wired.passes(CORPORATE)
    assert machine.run(f"wget -qO- http://{CORPORATE}:8080") == "corporate intranet, port 8080\n"
    with pytest.raises(MachineError, match="refused"):
        machine.run(f"wget -qO- http://{CORPORATE}:80")


def test_a_machine_has_all_its_queues(wired):
    """Two pairs were asked for: the card has them, the machine negotiated them and the switch serves four."""
    machine = wired.up()
    found = machine.run("ls /sys/class/net/eth0/queues").split()
    assert sorted(found) == ["rx-0", "rx-1", "tx-0", "tx-1"]
    wired.passes(wired.peer)
    log = (wired.lab.run / "ovs" / "ovs-vswitchd.log").read_text()
    assert all(f"State of queue {number} " in log for number in range(4))


def test_its_traffic_has_right_checksums_both_ways(wired):
    """The switch finishes no checksum and cuts no packet, so the machine does: no such offload is offered.

    iperf3 carries data both ways; of the machine's segments none is wrong, nor is any at the machine.
    """
    machine = wired.up()
    wired.passes(wired.peer)
    features = machine.run(
        "for one in /sys/class/net/eth0/device /sys/class/net/eth0/device/..; do"
        " cat $one/features 2>/dev/null; done; true"
    ).split()[0]
    assert [features[bit] for bit in (CSUM, HOST_TSO4, HOST_TSO6)] == ["0", "0", "0"]
    assert [features[bit] for bit in (GUEST_CSUM, GUEST_TSO4, MRG_RXBUF, MQ)] == ["1", "1", "1", "1"]
    own = wired.row["address"][0].partition("/")[0]
    before = wired.counted("TcpInCsumErrors")
    with (
        wired.program("tcpdump", "-n", "-i", "any", "-vv", f"src {own} and tcp") as watcher,
        wired.iperf_server(),
    ):
        assert watcher.stdout
        while "listening" not in watcher.stdout.readline():
            pass
        for way in ("", "-R"):
            asked = f"iperf3 -c {wired.peer} -p {PORT} -n 2M -J {way} | grep -A 6 sum_received"
            (carried,) = re.findall(r'"bytes":\s*(\d+)', machine.run(asked, PATIENCE))
            assert int(carried) > 1_000_000
        seen = interrupt(watcher)
    assert seen.count("(correct)") > 100
    assert "incorrect" not in seen
    assert wired.counted("TcpInCsumErrors") == before
    lines = [line.split() for line in machine.run("grep ^Tcp: /proc/net/snmp").splitlines()]
    assert dict(zip(*lines, strict=True))["InCsumErrors"] == "0"


def test_a_machine_that_boots_again_has_its_wire_without_a_request(wired):
    """The same connection since the same time, and packets pass."""
    machine = wired.up()
    wired.passes(CORPORATE)
    before = wired.row
    machine.reboot()
    wired.up(boot=False)
    wired.passes(CORPORATE)
    assert (wired.row["since"], wired.row["hops"]) == (before["since"], before["hops"])


def test_a_forwarder_that_starts_again_in_mid_traffic_loses_no_packet(wired):
    """By the book, and after a SIGKILL of the daemon that it lives in: all pings of a machine come back."""
    machine = wired.up()
    wired.passes(wired.peer)
    before = [hop["id"] for hop in wired.row["hops"]]
    machine.run(f"(ping -i 0.05 {wired.peer} >/pings 2>&1 &)")
    lab = wired.lab
    lab.nsm("restart", "daemon").ok()
    lab.kill_daemon()
    lab.up("--forwarders", "linux,ovs")
    until(lambda: wired.row["state"] == "up", PATIENCE, lambda: f"{wired.row}")
    assert [hop["id"] for hop in wired.row["hops"]] == before
    machine.run("sleep 2; killall -INT ping; sleep 1", PATIENCE)
    count, last = machine.run("grep -c seq= /pings; grep seq= /pings | tail -n 1").splitlines()
    (number,) = re.findall(r"seq=(\d+)", last)
    assert int(number) > 40
    assert int(count) == int(number) + 1


def test_a_switch_that_is_killed_comes_back_to_the_running_machine(wired):
    """The machine's monitor connects again: neither a boot nor a Request is needed."""
    machine = wired.up()
    wired.passes(CORPORATE)
    before, running = wired.row, machine.run("cat /proc/sys/kernel/random/boot_id")
    pid = wired.switch
    os.kill(pid, signal.SIGKILL)
    until(lambda: wired.switch not in {0, pid}, 30, wired.told)
    wired.passes(CORPORATE, PATIENCE)
    assert machine.run("cat /proc/sys/kernel/random/boot_id") == running
    assert wired.row["since"] == before["since"]


def test_a_machine_that_is_killed_in_mid_traffic_leaves_nothing(wired):
    """The switch gives up its memory and sockets; another machine takes the socket, and packets pass."""
    wired.up().kill()
    until(lambda: wired.held()[1] == 1, 30, lambda: f"{wired.held()}")
    idle = wired.held()
    machine = wired.up()
    wired.passes(wired.peer)
    assert wired.held() > idle
    pid = machine.pid
    with wired.iperf_server():
        machine.run(f"(iperf3 -c {wired.peer} -p {PORT} -t 60 >/dev/null 2>&1 &)")
        received = wired.counted("TcpInSegs")
        until(lambda: wired.counted("TcpInSegs") > received + 200, PATIENCE)
        machine.kill()
    assert is_gone(pid)
    until(lambda: wired.held() <= idle, 30, lambda: f"{wired.held()} after {idle}")
    wired.up()
    wired.passes(CORPORATE, PATIENCE)
    assert wired.lab.status()["audit"] == []


def test_connect_tells_a_socket_that_lives_as_long_as_the_connection(wired):
    """By hand as by an annotation; nobody need take it, and it is gone with the connection."""
    lab = wired.lab
    place = lab.namespace("x")
    url = "vhost-user://secure-intranet-connectivity"
    told = lab.nsm("connect", url, "--netns", place, "--name", "other").ok().out
    path = Path(lab.row("connections", "other-0")["socket"])
    assert f"wire {path} to firewall" in told
    assert path.is_socket()
    lab.nsm("disconnect", "other-0").ok()
    until(lambda: not path.exists() and not path.is_symlink(), 30)
