"""Wires onto VLANs of a NIC: exact tags, one Ethernet for all on a VLAN, nothing across, nothing stays."""

import asyncio
import struct

import datapath_lab as lab
import pytest
import vlan_lab

from nsmesh.datapath.abilities import lacks
from nsmesh.datapath.base import TunnelRefused
from nsmesh.datapath.inventory import group_of
from nsmesh.datapath.leaks import leaks
from nsmesh.datapath.vlans import VlanDatapath, name_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(lacks("VLAN")), reason=lacks("VLAN"))]

TAGS = [pytest.param(True, id="the kernel's devices, if it has them"), pytest.param(False, id="programs")]


def run(main, **more):
    async def inside(found):
        driver = VlanDatapath(node=found.node, owner="a", namespaces=lambda: found.pods)
        try:
            await main(found, driver)
        finally:
            await driver.aclose()

    with vlan_lab.place(**more) as found:
        asyncio.run(inside(found))


def devices(found):
    """Return what identifies each interface of the node, and whether it is up and a port of what."""
    keys = "ifindex", "ifname", "address", "flags", "master", "mtu"
    return [[link.get(key) for key in keys] for link in lab.ip(found.node, "link", "show")]


@pytest.mark.parametrize("kernel_tags", TAGS)
@pytest.mark.parametrize("payload", ["ETHERNET", "IP"])
def test_a_host_outside_is_reached(payload, kernel_tags):
    """Both families, up to the very MTU, with the exact tag on the wire, and no tag left in the pod."""

    async def main(found, driver):
        driver._kernel_tags = kernel_tags
        wire = vlan_lab.wire(found, 0, 100, payload=payload)
        applied = await driver.apply(wire)
        assert (applied.outcome, applied.b_mac) == ("created", "")
        with vlan_lab.outsider(found, 100) as (v4, v6), vlan_lab.ear(found.outside, "eth0") as heard:
            assert vlan_lab.pings(found.pods[0], v4, 1472)
            assert vlan_lab.pings(found.pods[0], v6, 1452)
            assert not vlan_lab.pings(found.pods[0], v4, 1473, count=1)
            frame = vlan_lab.hear(heard, bytes(range(0x10, 0x30)))
            assert frame is not None
            assert frame[12:18] == bytes.fromhex("8100 0064 0800")
        assert (await driver.apply(wire)).outcome == "unchanged"

    run(main)


@pytest.mark.parametrize("kernel_tags", TAGS)
def test_all_on_a_vlan_are_one_ethernet(kernel_tags):
    """Two pods and a host outside see each other; another VLAN of the same NIC sees none of it."""

    async def main(found, driver):
        driver._kernel_tags = kernel_tags
        for pod, vlan in ((0, 100), (1, 100), (2, 200)):
            assert (await driver.apply(vlan_lab.wire(found, pod, vlan))).outcome == "created"
        first, second, third = found.pods
        with vlan_lab.outsider(found, 100) as (v4, _), vlan_lab.outsider(found, 200) as (other, _):
            assert vlan_lab.pings(first, vlan_lab.host(vlan_lab.address4(1, 100)))
            assert vlan_lab.pings(second, vlan_lab.host(vlan_lab.address6(0, 100)))
            assert vlan_lab.pings(first, v4)
            assert vlan_lab.pings(second, v4)
            assert vlan_lab.pings(third, other)
            with vlan_lab.ear(third, "nsm-200") as heard:
                shout = b"\xff" * 6 + bytes.fromhex("020000000001 9999") + b"to all of VLAN 100" * 3
                vlan_lab.say(first, "nsm-100", shout)
                assert vlan_lab.hear(heard, b"to all of VLAN 100", 0.3) is None
            with vlan_lab.ear(second, "nsm-100") as heard:
                vlan_lab.say(first, "nsm-100", shout)
                assert vlan_lab.hear(heard, b"to all of VLAN 100") == shout

    run(main, pods=3)


def test_frames_from_outside_lose_the_tag_that_is_theirs_alone():
    """A second tag inside stays; other tags, and none, go where they went before: to the node."""

    async def main(found, driver):
        driver._kernel_tags = False
        await driver.apply(vlan_lab.wire(found, 0, 100))
        head = b"\xff" * 6 + bytes.fromhex("020000000001")
        body = bytes.fromhex("9999") + b"a frame from outside" * 3
        tag = struct.pack(">HH", 0x8100, 3 << 13 | 100)  # with a priority
        inner = struct.pack(">HH", 0x8100, 7)
        with vlan_lab.ear(found.pods[0], "nsm-100") as heard:
            vlan_lab.say(found.outside, "eth0", head + tag + body)
            assert vlan_lab.hear(heard, b"from outside") == head + body
            vlan_lab.say(found.outside, "eth0", head + tag + inner + body)
            assert vlan_lab.hear(heard, b"from outside") == head + inner + body
            for other in (b"", struct.pack(">HH", 0x8100, 101), struct.pack(">HH", 0x88A8, 100)):
                vlan_lab.say(found.outside, "eth0", head + other + body)
                assert vlan_lab.hear(heard, b"from outside", 0.2) is None
        with vlan_lab.ear(found.outside, "eth0") as heard:
            vlan_lab.say(found.pods[0], "nsm-100", head + inner + body)
            assert (
                vlan_lab.hear(heard, b"from outside") == head + struct.pack(">HH", 0x8100, 100) + inner + body
            )

    run(main, pods=1)


def test_a_vlan_of_zero_has_no_tag():
    """Frames go out bare, those with a tag of their own are dropped; a node's own interface is not taken."""

    async def main(found, driver):
        await driver.apply(vlan_lab.wire(found, 0, 0))
        outside = vlan_lab.address4(9, 0)
        lab.run(found.outside, "ip", "addr", "add", outside, "dev", "eth0")
        assert vlan_lab.pings(found.pods[0], vlan_lab.host(outside))
        head = b"\xff" * 6 + bytes.fromhex("020000000001")
        with vlan_lab.ear(found.outside, "eth0") as heard:
            vlan_lab.say(
                found.pods[0], "nsm-0", head + bytes.fromhex("8100 0064 9999") + b"into VLAN 100" * 4
            )
            assert vlan_lab.hear(heard, b"into VLAN 100", 0.3) is None
            vlan_lab.say(found.pods[0], "nsm-0", head + bytes.fromhex("9999") + b"no tag" * 8)
            assert vlan_lab.hear(heard, b"no tag") == head + bytes.fromhex("9999") + b"no tag" * 8
        await driver.remove("wire-0-0")
        lab.run(found.node, "ip", "addr", "add", "192.0.2.7/24", "dev", vlan_lab.NIC)
        with pytest.raises(TunnelRefused, match="it has addresses there"):
            await driver.apply(vlan_lab.wire(found, 0, 0))
        await driver.drain()
        assert lab.names(found.node) == {vlan_lab.NIC}

    run(main, pods=1)


def test_the_node_has_no_part_in_a_vlan():
    """A pod on a VLAN does not reach the node's own addresses, not even by the MAC of the bridge."""

    async def main(found, driver):
        lab.run(found.node, "ip", "link", "set", "lo", "up")
        lab.run(found.node, "ip", "addr", "add", "10.0.100.77/32", "dev", "lo")
        await driver.apply(vlan_lab.wire(found, 0, 100))
        (bridge,) = (name for name in lab.names(found.node) if name.endswith("b100"))
        mac = lab.link(found.node, bridge)["address"]
        assert not vlan_lab.pings(found.pods[0], "10.0.100.77", count=1)
        lab.run(found.pods[0], *f"ip neigh replace 10.0.100.77 lladdr {mac} dev nsm-100".split())
        assert not vlan_lab.pings(found.pods[0], "10.0.100.77", count=1)

    run(main, pods=1)


@pytest.mark.parametrize("kernel_tags", TAGS)
def test_nothing_stays(kernel_tags):
    """With the last wire of a VLAN its bridge goes, with the last VLAN all that was done to the NIC."""

    async def main(found, driver):
        driver._kernel_tags = kernel_tags
        for pod, vlan in ((0, 100), (1, 100), (1, 200)):
            await driver.apply(vlan_lab.wire(found, pod, vlan))
        await driver.remove("wire-0-100")
        await driver.drain()
        assert sum(name.startswith("vl") and "b" in name for name in lab.names(found.node)) == 2
        assert name_of("wire-0-100") not in lab.names(found.node)
        with vlan_lab.outsider(found, 100) as (v4, _):
            assert vlan_lab.pings(found.pods[1], v4)
        await driver.remove("wire-1-100")
        await driver.remove("wire-1-200")
        await driver.drain()
        assert lab.names(found.node) == {vlan_lab.NIC}
        assert lab.names(found.pods[1]) == set()
        assert "PROMISC" not in lab.link(found.node, vlan_lab.NIC)["flags"]
        assert lab.run(found.node, "tc", "filter", "show", "dev", vlan_lab.NIC, "ingress") == ""

    run(main)


def test_a_restarted_driver_takes_it_over():
    """The same interfaces, nothing changed, packets pass; what nobody owns is swept, its VLAN with it."""

    async def main(found, driver):
        wires = [vlan_lab.wire(found, pod, 100) for pod in (0, 1)]
        for wire in wires:
            await driver.apply(wire)
        before = devices(found)
        again = VlanDatapath(node=found.node, owner="a", namespaces=lambda: found.pods)
        await again.has()
        assert [(await again.apply(wire)).outcome for wire in wires] == ["unchanged"] * 2
        assert devices(found) == before
        assert vlan_lab.pings(found.pods[0], vlan_lab.host(vlan_lab.address4(1, 100)))
        last = VlanDatapath(node=found.node, owner="a", namespaces=lambda: found.pods)
        assert {item.id for item in await last.sweep(["wire-0-100"])} == {"wire-1-100"}
        assert len(lab.names(found.node)) > 1
        await last.sweep([])
        assert lab.names(found.node) == {vlan_lab.NIC}
        for one in (again, last):
            await one.aclose()

    run(main)


def test_a_bridge_that_nobody_uses_is_told():
    """By the audit of a host, as what belongs to nobody; one that a wire uses is not."""

    async def main(found, driver):
        await driver.apply(vlan_lab.wire(found, 0, 100))
        owned = {group_of("a"): {"wire-0-100"}}
        assert leaks([found.node], owned) == []
        lab.run(found.node, "ip", "link", "del", name_of("wire-0-100"))
        nic = lab.link(found.node, vlan_lab.NIC)["ifindex"]
        assert [one.name for one in leaks([found.node], owned)] == [f"vl{nic:x}b100"]

    run(main, pods=1)


def test_what_was_damaged_is_mended():
    """A bridge, a way out or a program that somebody took away is made again by the next apply."""

    async def main(found, driver):
        driver._kernel_tags = False
        wire = vlan_lab.wire(found, 0, 100)
        await driver.apply(wire)
        nic = lab.link(found.node, vlan_lab.NIC)["ifindex"]
        damages = (
            f"ip link del vl{nic:x}b100",
            f"ip link del vl{nic:x}u100",
            f"tc qdisc del dev {vlan_lab.NIC} clsact",
            f"ip link set {vlan_lab.NIC} promisc off",
        )
        with vlan_lab.outsider(found, 100) as (v4, _):
            for damage in damages:
                lab.run(found.node, *damage.split())
                assert (await driver.apply(wire)).outcome == "changed", damage
                assert vlan_lab.pings(found.pods[0], v4), damage
                assert (await driver.apply(wire)).outcome == "unchanged", damage

    run(main, pods=1)


@pytest.mark.parametrize("end", ["the pod's", "the node's"])
def test_a_wire_whose_end_was_deleted_is_on_its_vlan_again(end):
    """What watches it makes both ends again; where the NIC is gone meanwhile it says so."""

    async def main(found, driver):
        driver.watch(lambda _: None)
        wire = vlan_lab.wire(found, 0, 100)
        await driver.apply(wire)
        place, name = (found.pods[0], "nsm-100") if end == "the pod's" else (found.node, name_of(wire.id))
        with vlan_lab.outsider(found, 100) as (v4, _):
            lab.run(place, "ip", "link", "del", name)
            assert (await driver.restore(wire.id)).outcome == "created"
            assert vlan_lab.pings(found.pods[0], v4)
            assert (await driver.apply(wire)).outcome == "unchanged"
        lab.run(found.node, "ip", "link", "del", vlan_lab.NIC)
        lab.run(place, "ip", "link", "del", name)
        with pytest.raises(TunnelRefused, match="this node has no interface"):
            await driver.restore(wire.id)

    run(main, pods=1)


def test_a_wire_moves_to_another_vlan():
    """The interface in the pod stays; the VLAN that it leaves goes."""

    async def main(found, driver):
        wire = vlan_lab.wire(found, 0, 100)
        await driver.apply(wire)
        index = lab.link(found.pods[0], "nsm-100")["ifindex"]
        moved = type(wire)(wire.id, wire.a, vlan_lab.wire(found, 0, 200).b, wire.payload)
        assert (await driver.apply(moved)).outcome == "changed"
        assert lab.link(found.pods[0], "nsm-100")["ifindex"] == index
        await driver.drain()
        assert not [name for name in lab.names(found.node) if name.endswith("100")]

    run(main, pods=1)


@pytest.mark.parametrize(
    ("nic", "vlan", "says"),
    [
        ("ext9", 100, "no interface ext9"),
        ("down0", 100, "the interface down0 is down"),
        ("ext0", 4095, "VLAN 4095 does not exist"),
    ],
)
def test_what_cannot_be_is_refused(nic, vlan, says):
    """With the reason, and with nothing left behind."""

    async def main(found, driver):
        lab.run(found.node, "ip", "link", "add", "down0", "type", "veth", "peer", "name", "down1")
        with pytest.raises(TunnelRefused, match=says):
            await driver.apply(vlan_lab.wire(found, 0, vlan, nic=nic))
        await driver.drain()
        assert lab.names(found.node) == {vlan_lab.NIC, "down0", "down1"}
        assert lab.names(found.pods[0]) == set()

    run(main, pods=1)


def test_a_pod_that_vanishes_takes_nothing_along():
    """Its wire goes with its namespace; the close afterwards takes the VLAN away."""

    async def main(found, driver):
        with lab.spaces(1) as (gone,):
            place = vlan_lab.Place(found.node, found.outside, (gone,))
            await driver.apply(vlan_lab.wire(place, 0, 100))
        await driver.remove("wire-0-100")
        await driver.drain()
        assert lab.names(found.node) == {vlan_lab.NIC}

    run(main, pods=1)
