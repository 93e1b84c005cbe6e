"""A wire between two nodes, one with a switch and one with the kernel's forwarder: VXLAN joins them."""

import asyncio
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import datapath_lab as lab
import node_lab
import pytest
import tunnel_lab
import vxlan_lab

from nsmesh.datapath import ovs_programs
from nsmesh.datapath.ovs_own import OwnSwitch

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(150),
    pytest.mark.skipif(bool(ovs_programs.lacks_switch()), reason="Open vSwitch is not installed"),
]
RECEIVE = """
import socket, sys
s = socket.create_server(("10.9.2.0", 7)); s.settimeout(20); print(flush=True)
c = s.accept()[0]
sys.stdout.buffer.write(b"".join(iter(lambda: c.recv(65536), b"")))
"""
SEND = """
import socket, sys
c = socket.create_connection(("10.9.2.0", 7), 5); c.sendall(sys.stdin.buffer.read())
"""


def switching(mesh, number, **given):
    """Start a forwarder with a switch on a node; ``given``: more of its settings."""
    switch = OwnSwitch(mesh.folder / f"switch{number}", mesh.spaces[number])
    mesh.callback(lambda: asyncio.run(switch.stop()))
    made = mesh.start(
        f"fwd{number}",
        mesh.spaces[number],
        "forwarder-ovs",
        NSM_LISTEN_ON=mesh.url(f"fwd{number}"),
        NSM_CONNECT_TO=mesh.url(f"nsmgr{number}"),
        NSM_TUNNEL_IP=node_lab.IPS[number - 1],
        NSM_SWITCH_DIRECTORY=str(switch.directory),
        NSM_JOURNAL=str(mesh.folder / f"fwd{number}.journal"),
        **given,
    )
    mesh.forwarders[number] = made
    return switch


@contextmanager
def meshed(numbers, **given):
    """Yield a mesh of two nodes, of which some have a switch; ``given``: settings of those forwarders."""
    with node_lab.Mesh() as found:
        found.registry()
        found.switches = {}
        for number in (1, 2):
            found.manager(number)
            if number in numbers:
                found.switches[number] = switching(found, number, **given)
            else:
                found.forwarder(number)
        for number in (1, 2):
            found.until_registered(f"fwd{number}")
        yield found


@pytest.fixture(params=[(1,), (2,), (1, 2)], ids=["client's node", "endpoint's node", "both"])
def mesh(request):
    with meshed(request.param) as found:
        yield found


@pytest.mark.parametrize("numbers", [(1,), (2,), (1, 2)], ids=["client's node", "endpoint's node", "both"])
@pytest.mark.parametrize("kind", ["GENEVE", "GRE"])
def test_a_wire_by_another_tunnel(kind, numbers):
    """Where the kernel has it: both families pass, and the largest packet, by a tunnel of that kind."""
    tunnel_lab.able(kind)
    with meshed(numbers, NSM_MECHANISMS=kind) as found:
        found.endpoint(2)
        found.client(1)
        found.until("nsc", "all wires are up")
        pod = found.pods[1]
        for address in ("10.9.2.0", "fd09:2::"):
            assert vxlan_lab.pings(pod, address), address
        assert vxlan_lab.pings(pod, "10.9.2.0", lab.link(pod, "nsm-1")["mtu"] - 28)
        command = ["ip", "-d", "-o", "-n", found.spaces[min(numbers)].rpartition("/")[2], "link"]
        devices = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert {"GENEVE": " geneve ", "GRE": " gretap "}[kind] in devices


def test_a_wire_between_nodes_by_a_switch(mesh):
    """Both families, the largest packet, a megabyte of TCP; a killed forwarder loses no packet; all goes.

    The client ends when its manager may not yet know that the forwarder is back, at another socket.
    """
    mesh.endpoint(2)
    client = mesh.client(1)
    mesh.until("nsc", "all wires are up")
    pod = mesh.pods[1]
    for address in ("10.9.2.0", "fd09:2::"):
        assert vxlan_lab.pings(pod, address), address
    assert lab.link(pod, "nsm-1")["mtu"] == 1450
    assert vxlan_lab.pings(pod, "10.9.2.0", 1450 - 28)
    stream(mesh)
    number = min(mesh.switches)
    ping = ["nsenter", f"--net={pod}", "ping", "-i", "0.01", "-c", "200", "-q", "10.9.2.0"]
    with subprocess.Popen(ping, stdout=subprocess.PIPE, text=True) as pings:
        node_lab.end(mesh.forwarders[number])
        mark = len(mesh.log(f"fwd{number}"))
        switching(mesh, number)
        mesh.until(f"fwd{number}", "forwarder ready", after=mark)
        assert "200 packets transmitted, 200 received" in pings.communicate(timeout=30)[0]
    node_lab.end(client, signal.SIGTERM)
    for one in mesh.switches.values():
        limit = time.monotonic() + 10
        while asyncio.run(one.ports.owners()):
            assert time.monotonic() < limit, "".join(map(mesh.log, ("nsc", f"fwd{number}")))[-6000:]
            time.sleep(0.05)
    limit = time.monotonic() + 10
    while "nsm-1" in lab.names(pod):  # it goes behind the ports
        assert time.monotonic() < limit, "".join(map(mesh.log, ("nsc", f"fwd{number}")))[-6000:]
        time.sleep(0.05)


def test_what_others_do_to_a_wire_by_a_switch(mesh):
    """The client's interface, deleted, is back as it was; a node that dies is left, and that one stays."""
    mesh.endpoint(2)
    mesh.client(1)
    mesh.until("nsc", "all wires are up")
    pod = mesh.pods[1]
    before = interface(pod)
    assert vxlan_lab.pings(pod, "10.9.2.0")
    lab.run(pod, "ip", "link", "delete", "nsm-1")
    node_lab.until(lambda: "nsm-1" in lab.names(pod), why=lambda: mesh.log("fwd1")[-6000:])
    node_lab.until(lambda: vxlan_lab.pings(pod, "10.9.2.0"), why=lambda: mesh.log("fwd1")[-6000:])
    mesh.until("fwd1", "wire restored")
    assert interface(pod) == before
    mesh.endpoint(1, NSM_REGISTER_SERVICE="false")
    lab.run(mesh.spaces[2], "ip", "link", "set", "under", "down")
    mesh.until("fwd1", r"node 192\.0\.2\.2 does not answer")
    node_lab.until(lambda: vxlan_lab.pings(pod, "10.9.1.0"), 40, why=lambda: mesh.log("fwd1")[-6000:])
    assert interface(pod) == before


def interface(pod):
    """Return what a program in a pod knows its interface by."""
    link = lab.link(pod, "nsm-1")
    return link["ifindex"], link["address"]


def stream(mesh):
    """Send a megabyte from one pod to the other by TCP."""
    sent = bytes(range(256)) * 4096
    inside = [["nsenter", f"--net={mesh.pods[number]}", sys.executable, "-c"] for number in (1, 2)]
    with subprocess.Popen([*inside[1], RECEIVE], stdout=subprocess.PIPE) as server:
        assert server.stdout.readline() == b"\n"
        subprocess.run([*inside[0], SEND], input=sent, check=True, timeout=30)
        assert server.stdout.read() == sent
