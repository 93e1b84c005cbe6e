"""Three hosts over IPv6 alone: wires between two that joined, encryption, and ends of members."""

import subprocess
import sys

import pytest
from host_lab import Host
from mesh_lab import responder, until
from test_second_host import SERVICE, client, names

from nsmesh.datapath.abilities import lacks

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

FIRST = "fd00:6::1"
MTU = 1430
"""Of a VXLAN wire over IPv6: 70 bytes are around a packet."""


CALL = """
import asyncio, sys
from pathlib import Path
from nsmesh import rpc
from nsmesh.model.methods import HEALTH_CHECK
from nsmesh.security.svid import SvidSource
from nsmesh.standalone.joining import record

async def main():
    svid, bundle = record.load(Path(sys.argv[1])).keys("default.nsmesh")
    pool = rpc.Pool(identity=SvidSource(svid, [bundle]), timeout=5)
    try:
        for url in sys.argv[2:]:
            client = await pool.get(url)
            await client.unary(HEALTH_CHECK, b"")
            print("answered", url)
    finally:
        await pool.aclose()

asyncio.run(main())
"""
"""Calls managers with the identity in a file."""


@pytest.fixture(scope="module")
def hosts():
    """Give three hosts on one Ethernet: the first has the switch and the mesh, the others are nodes."""
    with Host("host1") as one, Host("host2") as two, Host("host3") as three:
        one.run(*["ip", "link", "add", "eth0", "type", "bridge", "mcast_snooping", "0"]).ok()
        for number, host in enumerate((two, three), 2):
            port = f"port{number}"
            ends = [["name", port, "netns", str(one.pid)], ["name", "eth0", "netns", str(host.pid)]]
            argv = ["ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1]]
            subprocess.run(argv, check=True, cwd="/")
            one.run("ip", "link", "set", port, "master", "eth0", "up").ok()
        for number, host in enumerate((one, two, three), 1):
            host.run(*f"ip address add fd00:6::{number}/64 dev eth0 nodad".split()).ok()
            host.run("ip", "link", "set", "eth0", "up").ok()
        one.nsm("up", "--listen", FIRST).ok()
        one.apply(SERVICE).ok()
        for host in (two, three):
            until(lambda host=host: host.run("ping", "-c1", "-W1", FIRST).code == 0)
            host.nsm("join", FIRST, "--token", one.token()).ok()
        yield one, two, three


def wired(host, workload="app"):
    """Return the row of a workload's wire, once packets pass."""
    until(lambda: host.reaches(workload), 30, why=lambda: host.events() + host.nsm("logs").out[-6000:])
    [row] = [row for row in host.get("connections") if row["client"] == workload]
    return row


def two_to_three(two, three):
    """Let a workload of the second host have a wire to the third, if it has none; return its row."""
    three.apply(responder(prefix='"172.30.0.0/24"')).ok()
    two.apply(client("app")).ok()
    row = wired(two)
    assert row["nodes"] == ["host2", "host3"]
    return row


def echoes(host, address, size):
    inside = (
        "ip",
        "netns",
        "exec",
        "default.app",
        "ping",
        "-M",
        "do",
        "-s",
        str(size),
        "-c1",
        "-W1",
        address,
    )
    return host.run(*inside)


def test_a_wire_between_two_that_joined(hosts):
    """It does not pass the first host, has the MTU of IPv6, and stays while the first host is dead."""
    one, two, three = hosts
    row = two_to_three(two, three)
    assert (row["nodes"], row["mtu"]) == (["host2", "host3"], MTU)
    [address] = [text.partition("/")[0] for text in row["peer_address"]]
    assert echoes(two, address, MTU - 28).code == 0
    done = echoes(two, address, MTU - 27)
    assert f"mtu={MTU}" in done.out + done.err
    assert {row["node"]: row["url"] for row in two.get("managers")} == {
        f"host{number}": f"tcp://[fd00:6::{number}]:5001" for number in (1, 2, 3)
    }
    one.kill_daemon()
    until(lambda: "the first host host1 does not answer" in two.events(), 40)
    assert two.reaches("app")
    assert two.get("connections")[0]["state"] == "up"
    one.nsm("up").ok()
    until(lambda: "the first host host1 answers again" in two.events(), 40)
    assert wired(two)["nodes"] == ["host2", "host3"]


def test_forwarders_are_told_when_a_host_comes_up(hosts):
    """The options of ``nsm up`` hold for one that joined: with WIREGUARD alone wires are encrypted."""
    if reason := lacks("WIREGUARD"):
        pytest.skip(f"WIREGUARD: {reason}")
    _, two, three = hosts
    two_to_three(two, three)
    for host in (two, three):
        host.nsm("down").ok()
    for host in (three, two):
        host.nsm("up", "--mechanisms", "WIREGUARD", "--tunnels-apart").ok()
    rows = {row["node"]: row["mechanisms"] for row in two.get("forwarders")}
    assert rows["host2"][0] == rows["host3"][0] == "WIREGUARD"
    assert wired(two)["mtu"] == 1500 - 80
    assert two.nsm("describe", "connection", "app-0").ok().out.count("WIREGUARD/") == 2


def test_a_member_that_leaves_or_is_removed_is_left_by_the_others(hosts):
    """A wire heals to another endpoint; a copy of its identity is refused by all, the other member too."""
    one, two, three = hosts
    two_to_three(two, three)
    three.nsm("down", "--purge").ok()
    assert "responder" not in names(one, "endpoints")
    taken = three.nsm("join", FIRST, "--name", "host2", "--token", one.token())
    taken.fails("there is a node host2 in this mesh already", "--name")
    one.apply(responder("other", prefix='"172.31.0.0/24"')).ok()
    until(lambda: set(names(two, "nodes")) == {"host1", "host2"}, 20)
    moved = [["host2", "host1"]]  # there may be none for a moment
    until(lambda: [row["nodes"] for row in two.get("connections")] == moved, 45, why=two.events)
    assert wired(two)["endpoint"] == "other"
    options = ("--mechanisms", "VXLAN", "--tunnels-apart", "--labels", "zone=b")
    three.nsm("join", FIRST, "--token", one.token(), *options).ok()
    labels = {row["node"]: row["labels"] for row in one.get("forwarders")}
    assert [node for node, given in labels.items() if given.get("zone") == "b"] == ["host3"]
    three.apply(client("app")).ok()
    row = wired(three)
    assert (row["nodes"], row["mtu"]) == (["host3", "host1"], MTU)
    kinds = three.run("ip", "-n", "default.app", "-d", "link", "show", "nsm-1").ok().out
    assert "veth" in kinds
    assert "vxlan" in three.run("ip", "-d", "link").ok().out
    stolen = "/var/lib/stolen.json"
    three.run("cp", "/var/lib/nsmesh/default/membership.json", stolen).ok()
    managers = [f"tcp://[fd00:6::{number}]:5001" for number in (1, 2)]
    said = three.run(sys.executable, "-c", CALL, stolen, *managers).ok().out
    assert said.count("answered") == 2
    one.nsm("node", "remove", "host3").ok()
    until(lambda: set(names(two, "nodes")) == {"host1", "host2"}, 20)
    until(lambda: not three.run("ls", "/run/nsmesh").out, 20)
    assert "vxlan" not in three.run("ip", "-d", "link").ok().out
    three.nsm("up").fails("this host was taken out of the mesh default")
    for manager in managers:
        refused = three.run(sys.executable, "-c", CALL, stolen, manager)
        assert (refused.code, refused.out) == (1, ""), refused
    assert two.reaches("app")
