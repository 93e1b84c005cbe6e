"""Two kinds of forwarders on each node, of the kernel and of Open vSwitch: nsm up --forwarders linux,ovs."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from mesh_lab import PACKETS, Lab, client_box, documents, is_gone, ping, responder, until

from nsmesh.datapath import netns, ovs_programs
from nsmesh.datapath.memif.peer import connect
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_programs import running
from nsmesh.endpoints.memif_answers import folder_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(ovs_programs.lacks_switch()), reason="Open vSwitch is not installed"),
]
BOTH = ("--forwarders", "linux,ovs")
SERVICE = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {{name: by-{kind}}}
spec:
  payload: IP
  matches:
    - routes: [{{destination_selector: {{app: behind-{kind}}}}}]
      metadata: {{labels: {{forwarder: {kind}}}}}
"""
CLIENT = """
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: box
  annotations: {networkservicemesh.io: "kernel://by-linux/nsm-1,kernel://by-ovs/nsm-2"}
spec: {NODE command: [sleep, infinity]}
"""
ADDRESSES = {"linux": "172.30.1.0", "ovs": "172.30.2.0"}


def populated(lab, *options):
    """Bring a mesh up whose client has a wire by each forwarder, to endpoints of its own node."""
    node = "node: node1, " if "--nodes" in options else ""
    lab.up(*BOTH, *options)
    endpoints = [responder(f"behind-{kind}", f"by-{kind}", f"{ADDRESSES[kind]}/24") for kind in ADDRESSES]
    if node:
        endpoints = [text.replace("spec:", "spec:\n  node: node1") for text in endpoints]
    services = [SERVICE.format(kind=kind) for kind in ADDRESSES]
    lab.apply(documents(*services, *endpoints, CLIENT.replace("NODE ", node))).ok()
    return lab


def switch_of(lab, *options):
    tail = "-node1" if "--nodes" in options else ""
    return OwnSwitch(lab.run / f"ovs{tail}", f"{netns.RUN_NETNS}/{lab.mesh}.ovs{tail}")


class Stream:
    """A hundred packets a second through the wire of the switch."""

    def __init__(self, lab, address=ADDRESSES["ovs"]):
        argv = ["ip", "netns", "exec", f"{lab.mesh}.box", "ping", "-n", "-i", "0.01", address]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def lost(self):
        """Return the numbers of packets that did not come back though later ones did."""
        time.sleep(0.5)
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=10)
        came = set(map(int, re.findall(r"icmp_seq=(\d+) ttl", out)))
        assert len(came) > 20
        return sorted(set(range(1, max(came))) - came)


@pytest.mark.parametrize("options", [(), ("--separate",), ("--nodes", "2")], ids=" ".join)
def test_a_match_chooses_and_the_wire_outlives_the_daemon(options):
    """Each wire goes by its forwarder; the daemon is killed and started again, and no packet is lost.

    After down there is no process and no namespace, the switch's own included.
    """
    with Lab() as lab:
        populated(lab, *options)
        for address in ADDRESSES.values():
            assert ping(f"{lab.mesh}.box", address)
        rows = {row["name"]: row for row in lab.get("forwarders") if row["node"] in {"", "node1"}}
        assert {row["labels"]["forwarder"]: row["wires"] for row in rows.values()} == {"linux": 1, "ovs": 1}
        (ports,) = asyncio.run(switch_of(lab, *options).ports.owners()).values()
        assert len(ports) == 2
        stream = Stream(lab)
        pid = lab.daemon()
        os.kill(pid, signal.SIGKILL)
        until(lambda: is_gone(pid))
        assert "removed" not in lab.nsm("up", *BOTH, *options).ok().out
        until(lambda: [row["state"] for row in lab.get("clients")] == ["up"], 20)
        assert stream.lost() == []
        assert lab.nsm("status", "-o", "json").ok().json()["audit"] == []
        lab.nsm("down").ok()
        assert lab.left() == []


def test_down_after_a_kill_takes_the_switch_along():
    """Its daemons are no children of the mesh, and yet none of them is left, nor their namespace."""
    with Lab() as lab:
        populated(lab)
        pid_files = [(lab.run / "ovs" / f"{name}.pid", name) for name in ("ovs-vswitchd", "ovsdb-server")]
        pids = [running(*one) for one in pid_files]
        assert all(pids)
        pid = lab.daemon()
        os.kill(pid, signal.SIGKILL)
        until(lambda: is_gone(pid))
        lab.nsm("down").ok()
        assert all(map(is_gone, pids))
        assert lab.left() == []


def test_a_daemon_of_the_switch_that_dies_is_back_without_a_request():
    """After its death the wire carries packets again by itself; a restart by the book loses none."""
    with Lab() as lab:
        populated(lab)
        pid = running(lab.run / "ovs" / "ovs-vswitchd.pid", "ovs-vswitchd")
        os.kill(pid, signal.SIGKILL)
        until(lambda: is_gone(pid))
        until(lambda: ping(f"{lab.mesh}.box", ADDRESSES["ovs"]), 10)
        stream = Stream(lab)
        lab.nsm("restart", "daemon").ok()
        assert stream.lost() == []


def test_two_meshes_with_switches_stand_side_by_side():
    """Each switch has a namespace of its own, so that their devices are not in each other's way."""
    with Lab("one") as one, Lab("two") as two:
        for lab in (one, two):
            populated(lab)
        for lab in (one, two):
            assert ping(f"{lab.mesh}.box", ADDRESSES["ovs"])
        home = Path("/sys/class/net")
        assert not (home / "ovs-netdev").exists()


def test_other_forwarders_than_there_are_is_said(lab):
    """A mesh that is up has the forwarders that it has; words that are none are told apart."""
    lab.nsm("up", "--forwarders", "linux,vpp").fails("vpp is no kind of forwarder", code=2)
    lab.up()
    lab.nsm("up", *BOTH).fails("up already, with --forwarders=linux", "down")


def test_wires_between_nodes_by_each_kind(lab):
    """Clients of the first node, endpoints of the second: by the kernel's forwarders and by two switches."""
    lab.up(*BOTH, "--nodes", "2")
    endpoints = [
        responder(f"behind-{kind}", f"by-{kind}", f"{ADDRESSES[kind]}/24").replace(
            "spec:", "spec:\n  node: node2"
        )
        for kind in ADDRESSES
    ]
    services = [SERVICE.format(kind=kind) for kind in ADDRESSES]
    lab.apply(documents(*services, *endpoints, CLIENT.replace("NODE ", "node: node1, "))).ok()
    for address in ADDRESSES.values():
        assert ping(f"{lab.mesh}.box", address)
    rows = lab.get("forwarders")
    assert {row["node"]: row["wires"] for row in rows if row["labels"]["forwarder"] == "ovs"} == {
        "node1": 1,
        "node2": 1,
    }
    lab.nsm("down").ok()
    assert lab.left() == []


needs_dpdk = pytest.mark.skipif(
    bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed"
)


@needs_dpdk
def test_a_memif_endpoint_is_reached_without_a_match_and_comes_back(lab):
    """The kernel's forwarder cannot make that wire, so the other one does.

    An endpoint that is killed listens again where it did, and the switch finds it; then a killed vswitchd.
    """
    lab.up(*BOTH)
    lab.apply(documents(PACKETS, client_box())).ok()
    box = f"{lab.mesh}.box"
    assert ping(box, "172.30.3.0")
    row = lab.row("endpoints", "packets")
    sockets = folder_of("packets", Path(f"/proc/{row['pid']}/cwd").resolve())
    assert sockets.is_dir()
    os.kill(row["pid"], signal.SIGKILL)
    until(lambda: is_gone(row["pid"]))
    until(lambda: ping(box, "172.30.3.0", wait=0.3), 25)
    pid = running(lab.run / "ovs" / "ovs-vswitchd.pid", "ovs-vswitchd")
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid))
    until(lambda: ping(box, "172.30.3.0", wait=0.3), 25)
    lab.nsm("down").ok()
    assert lab.left() == []
    assert not sockets.exists()


@needs_dpdk
def test_a_forwarder_that_starts_again_loses_no_packet_of_a_memif_wire(lab):
    """By SIGKILL and by the book: a stream goes on meanwhile, and the wire is its successor's."""
    lab.up(*BOTH, "--separate")
    lab.apply(documents(PACKETS, client_box())).ok()
    assert ping(f"{lab.mesh}.box", "172.30.3.0")

    def forwarder():
        (row,) = (row for row in lab.get("forwarders") if row["labels"].get("forwarder") == "ovs")
        return row

    stream = Stream(lab, "172.30.3.0")
    pid = forwarder()["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: forwarder()["state"] == "running" and forwarder()["pid"] not in {0, pid}, 30)
    done = lab.nsm("restart", "ovs-forwarder")
    assert done.code == 0, done.err + lab.nsm("logs", "daemon").out[-6000:]
    until(lambda: forwarder()["wires"] == 1, 30)
    assert stream.lost() == []


def test_without_dpdk_a_memif_endpoint_is_refused_with_the_reason(lab, monkeypatch):
    """Memif is handed on alone then, and never wired: the error says what both ends have."""
    monkeypatch.setenv("NSM_DPDK_MEMORY", "0")
    lab.up(*BOTH)
    mechanisms = {row["labels"]["forwarder"]: row["mechanisms"] for row in lab.get("forwarders")}
    assert mechanisms["ovs"] == ["KERNEL", "MEMIF"]
    lab.apply(PACKETS).ok()
    asked = lab.nsm("connect", "kernel://shared-memory", "--netns", lab.namespace("x"))
    asked.fails("KERNEL: not supported here", "MEMIF")


def test_a_client_with_memif_is_told_its_socket(lab):
    """The endpoint's, which the forwarder hands on without a wire: a memif peer of the user's pings there."""
    lab.up()
    lab.apply(PACKETS).ok()
    out = lab.nsm("connect", "memif://shared-memory", "--netns", lab.namespace("m")).ok().out
    found = re.search(r"wire (/\S+) to packets .*: (\S+)/32 -> (\S+)/32", out)
    assert found, out
    path, own, target = found.groups()

    async def ping_there():
        back = asyncio.Event()
        peer = connect(path, lambda frame: back.set())
        await asyncio.wait_for(peer.connected.wait(), 10)
        asked = bytes.fromhex("0001080006040001020000000001") + ip_address(own).packed
        asked += bytes(6) + ip_address(target).packed
        assert peer.send([b"\xff" * 6 + bytes.fromhex("020000000001") + b"\x08\x06" + asked]) == 1
        await asyncio.wait_for(back.wait(), 10)
        peer.close()

    asyncio.run(ping_there())
