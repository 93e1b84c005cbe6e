"""Wires onto VLANs by a bridge of somebody else's switch: exact tags, and nothing of ours stays there."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import datapath_lab as lab
import pytest
import vlan_lab
from bridge_lab import ground, run
from node_lab import until
from their_switch import OUT, has_module
from vlan_lab import ODD, pinged

from nsmesh.datapath.ovs import names_of
from nsmesh.datapath.ovs_patches import bridge_mtu
from nsmesh.datapath.ovs_programs import lacks_switch
from nsmesh.datapath.ovs_rows import far_of
from nsmesh.model.tunnels import BridgePort

WHY = lacks_switch()
pytestmark = [pytest.mark.root, pytest.mark.timeout(150), pytest.mark.skipif(bool(WHY), reason=WHY)]


@pytest.fixture(params=["netdev", "system"])
def kind(request):
    """Give each type of datapath that their bridge, and so ours, may have."""
    if request.param == "system" and not has_module():
        pytest.skip("the module openvswitch of the kernel is not here")
    return request.param


@pytest.mark.parametrize("payload", ["ETHERNET", "IP"])
def test_a_host_outside_is_reached_by_their_bridge(tmp_path, payload, kind):
    """Both families, up to the very MTU, with the exact tag on the wire; with payload IP nothing else."""

    async def main(place, driver):
        found, refuses = place.found, payload != "ETHERNET"
        wire = place.wire(0, 100, payload=payload)
        applied = await driver.apply(wire)
        assert (applied.outcome, applied.b_mac) == ("created", "")
        with vlan_lab.outsider(found, 100) as (v4, v6), vlan_lab.ear(found.outside, "eth0") as heard:
            await vlan_lab.exactly_tagged(found, v4, v6, heard)
            tagged = ODD[:12] + bytes.fromhex("8100 0064") + ODD[12:]
            with suppress(OSError):  # so the kernel tells of what it has refused
                vlan_lab.say(found.pods[0], "nsm-100", ODD)
            assert vlan_lab.hear(heard, b"no packet", 0.5 if refuses else 2.0) == (
                None if refuses else tagged
            )
            with vlan_lab.ear(found.pods[0], "nsm-100") as inside:
                vlan_lab.say(found.outside, "eth0", tagged)
                if refuses:
                    await asyncio.to_thread(until, lambda: driver.refused()[wire.id]["other"] == 2)
                else:
                    assert vlan_lab.hear(inside, b"no packet") == ODD
        assert (await driver.apply(wire)).outcome == "unchanged"
        assert place.switch.works()

    run(tmp_path, main, pods=1, kind=kind)


def test_what_is_made_in_their_bridge_is_marked_and_goes_with_the_wire(tmp_path):
    """One access port, with the names of wire and forwarder; the bridge itself is what it was."""

    async def main(place, driver):
        await driver.switch.ensure()
        before = place.switch.everything(), place.switch.theirs()
        wires = [place.wire(0, 100), place.wire(1, 7)]
        for wire in wires:
            await driver.apply(wire)
        far = {far_of(names_of(wire.id)[1]): wire.b.vlan for wire in wires}
        assert place.switch.far_ports() == far
        name, *_ = far
        told = place.switch.vsctl("--columns=external_ids,vlan_mode", "list", "port", name)
        for text in ("nsm-connection=wire-0-100", 'nsm-forwarder="forwarder:one"', "access"):
            assert text in told
        assert place.switch.theirs() == before[1]
        for wire in wires:
            await driver.remove(wire.id)
        await asyncio.to_thread(until, lambda: place.switch.everything() == before[0])
        assert await driver.switch.ports.owners() == {}

    run(tmp_path, main)


def test_a_vlan_of_none_is_reached_without_a_tag(tmp_path):
    """Tag 0: frames without one, both ways; those of another VLAN do not come in."""

    async def main(place, driver):
        found = place.found
        await driver.apply(place.wire(0, 0))
        with vlan_lab.outsider(found, 0) as (v4, _), vlan_lab.ear(found.outside, "eth0") as heard:
            assert await pinged(found.pods[0], v4, 1472, count=20)
            frame = vlan_lab.hear(heard, bytes(range(0x10, 0x30)))
            assert frame is not None
            assert frame[12:14] == bytes.fromhex("0800")
        with vlan_lab.ear(found.pods[0], "nsm-0") as inside:
            vlan_lab.say(found.outside, "eth0", ODD[:12] + bytes.fromhex("8100 0064") + ODD[12:])
            assert vlan_lab.hear(inside, b"no packet", 0.5) is None
            vlan_lab.say(found.outside, "eth0", ODD)
            assert vlan_lab.hear(inside, b"no packet") == ODD

    run(tmp_path, main, pods=1)


def test_clients_of_a_vlan_are_one_ethernet_and_another_is_apart(tmp_path):
    """Pings and a stream between two on VLAN 100; what they shout is not heard on VLAN 200."""

    async def main(place, driver):
        found = place.found
        for wire in (place.wire(0, 100), place.wire(1, 100), place.wire(2, 200)):
            await driver.apply(wire)
        first, second, apart = found.pods
        for one, other in ((0, 1), (1, 0)):
            assert await pinged(found.pods[one], vlan_lab.host(vlan_lab.address6(other, 100)), count=20)
            address = vlan_lab.host(vlan_lab.address4(other, 100))
            assert await asyncio.to_thread(vlan_lab.stream, found.pods[other], found.pods[one], address)
        with vlan_lab.ear(apart, "nsm-200") as heard, vlan_lab.ear(second, "nsm-100") as friend:
            vlan_lab.say(first, "nsm-100", ODD)
            assert vlan_lab.hear(friend, b"no packet") == ODD
            assert vlan_lab.hear(heard, b"no packet", 0.3) is None
        await driver.remove("wire-0-100")
        assert sorted(place.switch.far_ports().values()) == [100, 200]
        with vlan_lab.outsider(found, 100) as (v4, _):
            assert await pinged(second, v4, count=20)

    run(tmp_path, main, pods=3)


def test_a_frame_with_a_tag_of_its_own_is_dropped(tmp_path):
    """As Open vSwitch does at any access port; the kernel's forwarder keeps it behind the VLAN's."""

    async def main(place, driver):
        found = place.found
        await driver.apply(place.wire(0, 100))
        with vlan_lab.ear(found.outside, "eth0") as heard:
            vlan_lab.say(found.pods[0], "nsm-100", ODD[:12] + bytes.fromhex("8100 0007") + ODD[12:])
            assert vlan_lab.hear(heard, b"no packet", 0.5) is None
            vlan_lab.say(found.pods[0], "nsm-100", ODD)
            assert vlan_lab.hear(heard, b"no packet") is not None

    run(tmp_path, main, pods=1)


def test_ports_in_advance_are_not_used(tmp_path):
    """They are for two interfaces: such a wire gets ports of its own, and a wire beside it takes a pair."""

    async def main(place, driver):
        spare = place.make(spares=2)
        await spare.switch.ensure()
        await spare.switch.spares.fill()
        await spare.apply(place.wire(0, 100))
        await spare.apply(lab.simple(*place.found.pods, "w1", 1))
        owners = await spare.switch.ports.owners()
        own = names_of("wire-0-100")
        assert set(owners["wire-0-100"]) == {*own, far_of(own[1])}
        assert {name[:4] for name in owners["w1"]} == {"nsms"}
        with vlan_lab.outsider(place.found, 100) as (v4, _):
            assert await pinged(place.found.pods[0], v4, count=20)
        await spare.switches.stop()
        await spare.aclose()

    run(tmp_path, main)


def test_a_wire_that_goes_elsewhere_leaves_their_bridge(tmp_path):
    """Onto another VLAN, and between two pods: the port of before is gone."""

    async def main(place, driver):
        a, b = place.found.pods
        wire = place.wire(0, 100)
        await driver.apply(wire)
        moved = replace(wire, b=place.wire(0, 200).b)
        await driver.apply(moved)
        assert list(place.switch.far_ports().values()) == [200]
        local = lab.simple(a, b, wire.id, 1)
        await driver.apply(local)
        assert lab.pings(a, "10.0.1.2")
        assert place.switch.far_ports() == {}
        await driver.apply(wire)
        assert list(place.switch.far_ports().values()) == [100]
        assert lab.names(b) == set()

    run(tmp_path, main)


def test_the_mtu_is_that_of_the_bridge(tmp_path):
    """Which is the least of its ports, in the switch's namespace."""
    with ground(tmp_path, pods=0) as place:
        end = BridgePort(OUT, 100, via="gw-1")
        assert bridge_mtu(end, place.found.node, place.switch.database) == 1500
        place.switch.run("ip", "link", "set", "ext0", "mtu", "1400")
        until(lambda: bridge_mtu(end, place.found.node, place.switch.database) == 1400)
