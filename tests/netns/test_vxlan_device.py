"""Wires between two nodes on the real kernel."""

import asyncio
import errno
import socket
from dataclasses import replace

import datapath_lab as lab
import pytest
import vxlan_lab
from vxlan_lab import both, closed, run

from nsmesh.core.errors import Conflict
from nsmesh.datapath import netns, tunnels
from nsmesh.datapath.apart import ApartDatapath, names_of
from nsmesh.datapath.base import CrossConnect, TunnelTaken, VxlanPort
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.vlans import ApartVlanDatapath, VlanDatapath

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("family", "header"), [(4, 50), (6, 70)])
def test_a_wire_joins_two_nodes(family, header):
    """IPv4 and IPv6 pass at once, without ARP, up to the very MTU and not one byte more."""

    async def main(found):
        mtu = 1500 - header
        here, there = await both(found, *vxlan_lab.wires(found, mtu=mtu, family=family))
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2")
        assert vxlan_lab.pings(found.pod_b, "fd00:1::1")
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2", mtu - 28)
        assert not vxlan_lab.pings(found.pod_a, "10.0.1.2", mtu - 27)
        states = {item["state"][0] for item in lab.ip(found.pod_a, "neigh", "show", "dev", "nsm-1")}
        assert states == {"PERMANENT"}
        await closed(here, there)

    run(main, family=family)


def test_the_largest_packet_fits_the_underlay_whole():
    """A packet of the wire's MTU crosses as one packet of the underlay's: nothing is cut into pieces."""

    async def main(found):
        here, there = await both(found, *vxlan_lab.wires(found))
        lab.set_sysctl(found.a, "net/ipv4/ip_no_pmtu_disc", "0")
        before = netns.call_in(found.a, fragments)
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2", 1450 - 28)
        assert netns.call_in(found.a, fragments) == before
        await closed(here, there)

    def fragments():
        with open("/proc/net/snmp") as file:  # noqa: PTH123 - a file of the namespace, not of the tree
            rows = [line.split() for line in file if line.startswith("Ip:")]
        return dict(zip(*rows, strict=True))["FragCreates"]

    run(main)


def test_the_socket_stays_in_the_node():
    """The device is in the pod alone; the node has no interface, and the pod no UDP socket."""

    async def main(found):
        here, there = await both(found, *vxlan_lab.wires(found))
        assert lab.names(found.pod_a) == {"nsm-1"}
        assert lab.names(found.a) == {"under"}
        assert ":4789" in lab.run(found.a, "ss", "-Hlun")
        assert ":4789" not in lab.run(found.pod_a, "ss", "-Hlun")
        assert vxlan_lab.tunnel(found.pod_a, "nsm-1")["learning"] is False
        await closed(here, there)

    run(main)


def test_two_nodes_may_listen_at_different_ports():
    """Each sends to the port of the other; a restarted driver finds that again and changes nothing."""

    async def main(found):
        first, second = vxlan_lab.wires(found, local_port=4790, remote_port=4791)
        here, there = await both(found, first, second)
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2")
        assert ":4790" in lab.run(found.a, "ss", "-Hlun")
        again = LinuxDatapath(node=found.a)
        assert (await again.apply(first)).outcome == "unchanged"
        await closed(here, there, again)

    run(main)


def test_the_same_wish_changes_nothing():
    """A second apply, and one of a restarted driver, leave index and MAC as they are."""

    async def main(found):
        first, second = vxlan_lab.wires(found)
        here, there = await both(found, first, second)
        before = lab.link(found.pod_a, "nsm-1")["ifindex"]
        assert (await here.apply(first)).outcome == "unchanged"
        again = LinuxDatapath(node=found.a)
        applied = await again.apply(first)
        assert (applied.outcome, applied.a_mac, applied.b_mac) == ("unchanged", vxlan_lab.NEAR_MAC, "")
        assert lab.link(found.pod_a, "nsm-1")["ifindex"] == before
        lower = replace(first, a=replace(first.a, mtu=1400))
        applied = await again.apply(lower)
        assert (applied.outcome, applied.details) == ("changed", ("a: set mtu to 1400",))
        assert lab.link(found.pod_a, "nsm-1")["ifindex"] == before
        await closed(here, there, again)

    run(main)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("field", ["vni", "remote", "remote_port", "local", "local_port"])
def test_another_tunnel_is_a_new_device_of_the_same_name(field, restarted):
    """Whatever of the tunnel differs, also after a restart: the wire then leads where it shall."""

    async def main(found):
        first, second = vxlan_lab.wires(found)
        here, there = await both(found, first, second)
        lab.run(found.a, "ip", "addr", "add", "192.0.2.3/24", "dev", "under")
        value = {"vni": 4713, "remote": "192.0.2.9", "local": "192.0.2.3"}.get(field, 4795)
        changed = replace(first, b=replace(first.b, **{field: value}))
        driver = LinuxDatapath(node=found.a) if restarted else here
        assert (await driver.apply(changed)).outcome in {"changed", "created"}
        assert lab.names(found.pod_a) >= {"nsm-1"}
        assert (await driver.apply(changed)).outcome == "unchanged"
        await driver.apply(first)
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2")
        await driver.drain()
        assert lab.names(found.pod_a) == {"nsm-1"}
        await closed(here, there, driver)

    run(main)


def test_a_taken_tunnel_leaves_nothing():
    """A VNI that another wire of the node has, in whatever pod: TunnelTaken, and no interface is left."""

    async def main(found):
        first, second = vxlan_lab.wires(found)
        here, there = await both(found, first, second)
        other, _ = vxlan_lab.wires(found, wire_id="w2", number=2)
        with pytest.raises(TunnelTaken, match="VNI 4711 at UDP port 4789"):
            await here.apply(other)
        assert lab.names(found.pod_a) == {"nsm-1"}
        elsewhere = replace(other, b=replace(other.b, local_port=4790, remote_port=4790))
        assert (await here.apply(elsewhere)).outcome == "created"  # a VNI is one at its port only
        await closed(here, there)

    run(main)


def test_a_tunnel_of_a_stranger_is_taken_too():
    """A VNI that a device has which nobody of the mesh made is no EEXIST for anybody, but TunnelTaken."""

    async def main(found):
        here, there = found.drivers()
        lab.run(found.a, "ip", "link", "add", "other", "type", "vxlan", "id", "4711", "dstport", "4789")
        with pytest.raises(TunnelTaken, match="VNI 4711 at UDP port 4789"):
            await here.apply(vxlan_lab.wires(found)[0])
        assert lab.names(found.pod_a) == set()
        await closed(here, there)

    run(main)


def test_a_closed_wire_frees_its_tunnel():
    """The VNI of a wire that was closed just now is there for the next one, though deletion is slow."""

    async def main(found):
        first, second = vxlan_lab.wires(found)
        here, there = await both(found, first, second)
        await here.remove("w1")
        other, _ = vxlan_lab.wires(found, wire_id="w2", number=2)
        assert (await here.apply(other)).outcome == "created"
        await here.drain()
        assert lab.names(found.pod_a) == {"nsm-2"}
        await closed(here, there)

    run(main)


def test_what_is_unowned_is_swept():
    """After a crash ``has`` finds the devices of the driver's own, and ``sweep`` leaves what is owned."""

    async def main(found):
        first, second = vxlan_lab.wires(found)
        other, _ = vxlan_lab.wires(found, wire_id="w2", number=2, vni=4713)
        here, there = await both(found, first, second, owner="forwarder:f1")
        await here.apply(other)
        again = LinuxDatapath(
            node=found.a, owner="forwarder:f1", namespaces=lambda: [found.pod_a, found.pod_b]
        )
        assert {item.id for item in await again.has()} == {"w1", "w2", "w1-far"}
        gone = await again.sweep(["w1", "w1-far"])
        assert [(item.id, item.name) for item in gone] == [("w2", "nsm-2")]
        assert lab.names(found.pod_a) == {"nsm-1"}
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2")
        await again.remove("w1")
        await again.drain()
        assert lab.names(found.pod_a) == set()
        await closed(here, there, again)

    run(main)


def test_a_name_of_somebody_else_is_refused():
    """An interface that is not ours keeps its name; the error says where it is."""

    async def main(found):
        lab.run(found.pod_a, "ip", "link", "add", "nsm-1", "type", "bridge")
        (here, there), (first, _) = found.drivers(), vxlan_lab.wires(found)
        with pytest.raises(Conflict, match=rf"an interface nsm-1 exists in {found.pod_a} already"):
            await here.apply(first)
        await closed(here, there)

    run(main)


def test_a_port_that_another_program_has_is_named():
    """The error says which port and which setting changes it, and nothing is left in the pod."""

    async def main(found):
        def bound():
            taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            taken.bind(("0.0.0.0", 4789))
            return taken

        (here, there), (first, _) = found.drivers(), vxlan_lab.wires(found)
        with netns.call_in(found.a, bound), pytest.raises(Conflict, match="NSM_VXLAN_PORT"):
            await here.apply(first)
        assert lab.names(found.pod_a) == set()
        assert (await here.apply(first)).outcome == "created"
        await closed(here, there)

    run(main)


def test_an_unnumbered_end_lets_the_neighbours_of_others_through():
    """Without permanent neighbours, ARP and neighbour discovery cross the wire as on any other link."""

    async def main(found):
        first, second = vxlan_lab.wires(found)
        first = replace(first, a=replace(first.a, neighbours=()), payload="ETHERNET")
        second = replace(second, b=replace(second.b, neighbours=()), payload="ETHERNET")
        here, there = await both(found, first, second)
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2")
        assert vxlan_lab.pings(found.pod_a, "fd00:1::2")
        await closed(here, there)

    run(main)


def test_a_wire_needs_an_end_on_this_node():
    """Two tunnels are no wire of this node."""
    port = VxlanPort(1, "192.0.2.1", "192.0.2.2")

    async def main():
        driver = LinuxDatapath()
        with pytest.raises(Exception, match="neither end of connection w1 is on this node"):
            await driver.apply(CrossConnect("w1", port, port))
        await driver.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("kind", [LinuxDatapath, ApartDatapath, VlanDatapath, ApartVlanDatapath])
@pytest.mark.parametrize("gro", [True, False])
def test_an_end_joins_what_it_receives_unless_told(kind, gro):
    """The kernel's own way is kept, or GRO is off at each device; packets of the very MTU pass either way."""

    async def main(found):
        first, second = vxlan_lab.wires(found)
        here, there = (kind(node=node, vxlan_gro=gro) for node in (found.a, found.b))
        await there.apply(second)
        await here.apply(first)
        apart = isinstance(here, ApartDatapath)
        ends = ((found.a, found.pod_a, first, "nsm-1"), (found.b, found.pod_b, second, "nse-1"))
        for node, pod, wire, name in ends:
            space, device = (node, names_of(wire.id)[1]) if apart else (pod, name)
            assert lab.link(space, device)["linkinfo"]["info_kind"] == "vxlan"
            assert vxlan_lab.joins(space, device) == gro
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2", 1450 - 28)
        assert vxlan_lab.pings(found.pod_b, "fd00:1::1")
        await closed(here, there)

    run(main)


@pytest.mark.parametrize("gro", [True, False])
def test_an_end_that_stands_is_left_as_it_was_made(gro):
    """A restarted driver that would make it otherwise, or an older one's successor, touches nothing."""

    async def main(found):
        first, second = vxlan_lab.wires(found)
        here, there = await both(found, first, second, vxlan_gro=gro)
        before = lab.link(found.pod_a, "nsm-1")["ifindex"]
        again = LinuxDatapath(node=found.a, vxlan_gro=not gro)
        applied = await again.apply(first)
        assert (applied.outcome, applied.details) == ("unchanged", ())
        assert lab.link(found.pod_a, "nsm-1")["ifindex"] == before
        assert vxlan_lab.joins(found.pod_a, "nsm-1") == gro
        await again.remove(first.id)
        await again.drain()
        assert (await again.apply(first)).outcome == "created"
        assert vxlan_lab.joins(found.pod_a, "nsm-1") != gro
        await closed(here, there, again)

    run(main)


def test_an_end_that_keeps_gro_is_a_wire_all_the_same(monkeypatch):
    """Where the kernel does not turn it off, the wire is made, and carries packets."""

    def refuse(_control, _name):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(tunnels, "receive_as_it_comes", refuse)

    async def main(found):
        here, there = await both(found, *vxlan_lab.wires(found), vxlan_gro=False)
        assert vxlan_lab.joins(found.pod_a, "nsm-1")
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2")
        await closed(here, there)

    run(main)
