"""A VLAN of two nodes, one with a switch and one with the kernel's forwarder: each role is a process."""

import asyncio
import signal
import subprocess

import datapath_lab as lab
import node_lab
import pytest
import vlan_lab
import vxlan_lab

from nsmesh.datapath.abilities import lacks
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_programs import lacks_switch

WHY = lacks("VLAN") or lacks_switch()
pytestmark = [pytest.mark.root, pytest.mark.timeout(200), pytest.mark.skipif(bool(WHY), reason=WHY)]

SELECTOR = f"interfaces: [{{name: {vlan_lab.NIC}, matches: [{{labelSelector: [{{via: gw-1}}]}}]}}]"
PREFIX = "10.9.1.0/24,fd09:1::/64"


def switching(mesh, variable):
    """Start the forwarder of the first node, with a switch; ``variable`` names the file that has the NIC."""
    switch = OwnSwitch(mesh.folder / "switch", mesh.spaces[1])
    mesh.callback(lambda: asyncio.run(switch.stop()))
    mark = len(mesh.log("fwd1")) if (mesh.folder / "fwd1.log").exists() else 0
    made = mesh.start(
        "fwd1",
        mesh.spaces[1],
        "forwarder-ovs",
        NSM_LISTEN_ON=mesh.url("fwd1"),
        NSM_CONNECT_TO=mesh.url("nsmgr1"),
        NSM_SWITCH_DIRECTORY=str(switch.directory),
        NSM_JOURNAL=str(mesh.folder / "fwd1.journal"),
        **{variable: str(mesh.folder / "selector.yaml")},
    )
    mesh.forwarders[1] = made
    mesh.until("fwd1", "forwarder ready", 60, after=mark)
    return switch


@pytest.fixture
def mesh():
    with node_lab.Mesh() as found:
        nics = [f"{vlan_lab.NIC} netns {space.rpartition('/')[2]}" for space in found.spaces.values()]
        command = f"ip link add {nics[0]} type veth peer name {nics[1]}"
        subprocess.run(command.split(), check=True)
        for space in found.spaces.values():
            lab.run(space, "ip", "link", "set", vlan_lab.NIC, "up")
        (found.folder / "selector.yaml").write_text(SELECTOR)
        found.registry()
        for number in (1, 2):
            found.manager(number)
        found.switch = switching(found, "NSM_L2_RESOURCE_SELECTOR_FILE")
        found.forwarder(2, NSM_DEVICE_SELECTOR_FILE=str(found.folder / "selector.yaml"))
        for number in (1, 2):
            found.until_registered(f"fwd{number}")
        found.endpoint(
            2,
            "remote-vlan",
            NSM_CONNECT_TO=found.url("registry"),
            NSM_SERVICES="s { vlan: 100; via: gw-1 }",
            NSM_CIDR_PREFIX=PREFIX,
        )
        yield found


def clients(mesh):
    """Start a client on each node; return their processes, and the addresses of the second one."""
    made = []
    for number in (1, 2):
        made.append(mesh.client(number, f"nsc{number}"))
        mesh.until(f"nsc{number}", "all wires are up")
    (link,) = lab.ip(mesh.pods[2], "addr", "show", "dev", "nsm-1")
    return made, [one["local"] for one in link["addr_info"] if one["scope"] == "global"]


def test_clients_of_both_forwarders_meet_on_a_vlan(mesh):
    """Both families, the largest packet, the tag; a killed forwarder loses no packet; all of it goes."""
    (client, _), addresses = clients(mesh)
    pod = mesh.pods[1]
    assert lab.link(pod, "nsm-1")["mtu"] == lab.link(mesh.pods[2], "nsm-1")["mtu"] == 1500
    assert len(addresses) == 2
    with vlan_lab.ear(mesh.spaces[2], vlan_lab.NIC) as heard:
        for address in addresses:
            assert vlan_lab.pings(pod, address, count=30), mesh.log("fwd1")[-6000:]
        frame = vlan_lab.hear(heard, bytes(range(0x10, 0x30)))
    assert frame is not None
    assert frame[12:16] == bytes.fromhex("8100 0064")
    assert vxlan_lab.pings(pod, addresses[0], 1500 - 28)
    ping = ["nsenter", f"--net={pod}", "ping", "-i", "0.01", "-c", "200", "-q", addresses[0]]
    with subprocess.Popen(ping, stdout=subprocess.PIPE, text=True) as pings:
        node_lab.end(mesh.forwarders[1])
        switching(mesh, "NSM_DEVICE_SELECTOR_FILE")
        assert "200 packets transmitted, 200 received" in pings.communicate(timeout=60)[0]
    node_lab.end(client, signal.SIGTERM)
    node_lab.until(lambda: "nsm-1" not in lab.names(pod), 30, why=lambda: mesh.log("fwd1")[-6000:])
    node_lab.until(lambda: not [name for name in lab.names(mesh.spaces[1]) if name.startswith("vl")], 30)
    assert asyncio.run(mesh.switch.ports.owners()) == {}


def test_a_client_is_told_that_the_way_out_is_gone(mesh):
    """By the node's name for it, with what to do; where it is back, the next Request passes."""
    lab.run(mesh.spaces[1], "ip", "link", "delete", vlan_lab.NIC)
    mesh.client(1, "nsc1")
    mesh.until("nsc1", f"this node has no interface {vlan_lab.NIC}, which is to lead to VLANs")
    mesh.until("nsc1", "correct the forwarder's device selector file, or add the interface to the node")
    assert "nsm-1" not in lab.names(mesh.pods[1])
    lab.run(mesh.spaces[1], "ip", "link", "add", vlan_lab.NIC, "type", "veth", "peer", "name", "ext1")
    for name in (vlan_lab.NIC, "ext1"):
        lab.run(mesh.spaces[1], "ip", "link", "set", name, "up")
    mesh.until("nsc1", "all wires are up", 60)
    assert lab.link(mesh.pods[1], "nsm-1")["operstate"] == "UP"
