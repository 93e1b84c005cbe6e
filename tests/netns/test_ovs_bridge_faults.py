"""A bridge of somebody else's that is not as it should be, and what becomes of our ports in it."""

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import bridge_lab
import datapath_lab as lab
import pytest
import vlan_lab
from bridge_lab import run
from node_lab import until
from ovs_lab import repairing
from their_switch import OUT
from vlan_lab import pinged

from nsmesh.core.errors import MeshError, Refused
from nsmesh.datapath.base import TunnelRefused
from nsmesh.datapath.ovs import OvsDatapath, names_of
from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_patches import bridge_mtu, patch_port
from nsmesh.datapath.ovs_programs import lacks_switch
from nsmesh.datapath.ovs_rows import SwitchPort, far_of
from nsmesh.datapath.ovs_shared import leave

WHY = lacks_switch()
pytestmark = [pytest.mark.root, pytest.mark.timeout(150), pytest.mark.skipif(bool(WHY), reason=WHY)]


def far_port(wire):
    """Return the name of a wire's port in their bridge."""
    return far_of(names_of(wire.id)[1])


@asynccontextmanager
async def another(place):
    """Have another forwarder with a wire onto VLAN 7 while the block runs."""
    other = place.make(name="two", bridge="br-two")
    await other.apply(place.wire(1, 7))
    yield
    await other.remove("wire-1-7")
    await other.switches.stop()
    await other.aclose()


async def refused(driver, place, said, remedy, wire=None):
    """Try a wire, check what is said, and that nothing of it is there."""
    before = place.switch.everything()
    with pytest.raises(TunnelRefused, match=said) as told:
        await driver.apply(wire or place.wire(0, 100))
    assert remedy in told.value.remedy
    await asyncio.to_thread(until, lambda: lab.names(place.found.pods[0]) == set())
    assert place.switch.everything() == before


def test_a_bridge_that_is_not_there(tmp_path):
    """Way, bridge and database are named, and where the MTU is asked for as well."""

    async def main(place, driver):
        await driver.switch.ensure()
        said = (
            f"via gw-1 leads to the bridge br-none, and the Open vSwitch at {place.switch.database} has none"
        )
        wire = place.wire(0, 100, bridge="br-none")
        await refused(driver, place, said, "ovs-vsctl add-br br-none", wire)
        with pytest.raises(Refused, match=said):
            bridge_mtu(wire.b, place.found.node, place.switch.database)

    run(tmp_path, main, pods=1)


def test_a_bridge_of_another_kind(tmp_path):
    """No port joins two datapaths: the setting that does is named."""

    async def main(place, driver):
        await driver.switch.ensure()
        await refused(driver, place, "is of type system: ours is of type netdev", "NSM_DATAPATH_TYPE=system")

    run(tmp_path, main, pods=1, theirs="system")


def test_a_bridge_of_ours(tmp_path):
    """It would lead nowhere."""

    async def main(place, driver):
        await driver.switch.ensure()
        wire = place.wire(0, 100, bridge=driver.switch.bridge)
        await refused(driver, place, "br-nsm, which is that of forwarder:one itself", "leads out", wire)

    run(tmp_path, main, pods=1)


def test_a_forwarder_with_a_switch_of_its_own(tmp_path):
    """It says which setting has it use theirs."""

    async def main(place, driver):
        own = OvsDatapath(OwnSwitch(tmp_path / "own", place.switch.c), namespaces=lambda: place.found.pods)
        try:
            await own.switch.ensure()
            await refused(own, place, "this forwarder has a switch of its own", "NSM_SWITCH_DATABASE")
        finally:
            await own.switches.stop()
            await own.aclose()

    run(tmp_path, main, pods=1)


def test_a_bridge_that_goes_at_that_moment_leaves_no_port(tmp_path):
    """All of a wire's ports are one transaction: there are all of them, or none."""

    async def main(place, driver):
        await driver.switch.ensure()
        before = place.switch.everything()
        gone = replace(place.wire(0, 100).b, bridge="br-gone")
        port = patch_port("nsmo0123456789b", gone, "forwarder:one")
        near = SwitchPort("nsmo0123456789a", "internal")
        with pytest.raises(Refused, match="the database of the switch refused"):
            await driver.switch.ports.connect("w", near, port)
        assert place.switch.everything() == before
        await driver.switch.ports.connect("w", near, replace(port, far=replace(port.far, bridge=OUT)))
        assert place.switch.far_ports() == {far_of(port.name): 100}
        await driver.switch.ports.disconnect("w")
        await asyncio.to_thread(until, lambda: place.switch.everything() == before)

    run(tmp_path, main, pods=1)


def test_a_killed_driver_is_followed_and_the_rest_is_swept(tmp_path):
    """Nothing is changed and packets pass without a driver; what nobody owns goes from their bridge."""

    async def main(place, driver):
        kept, lost = place.wire(0, 100), place.wire(1, 100)
        for wire in (kept, lost):
            await driver.apply(wire)
        rows = place.switch.vsctl("list", "port", far_port(kept))
        with vlan_lab.outsider(place.found, 100) as (v4, _):
            assert await pinged(place.found.pods[0], v4, count=20)
            again = place.make()
            assert (await again.apply(kept)).outcome == "unchanged"
            assert {gone.id for gone in await again.sweep([kept.id])} == {lost.id}
            assert place.switch.far_ports() == {far_port(kept): 100}
            assert place.switch.vsctl("list", "port", far_port(kept)) == rows
            assert await pinged(place.found.pods[0], v4, count=20)
            await again.sweep([])
            assert place.switch.far_ports() == {}
        await again.aclose()

    run(tmp_path, main)


def test_a_wire_of_which_their_half_alone_is_left_is_swept(tmp_path):
    """Somebody took ours out while no forwarder ran; another forwarder's port stays."""

    async def main(place, driver):
        async with another(place):
            wire = place.wire(0, 100)
            await driver.apply(wire)
            place.switch.vsctl("del-port", names_of(wire.id)[1])
            again = place.make()
            await again.switch.ensure()
            assert place.switch.far_ports() == {far_port(place.wire(1, 7)): 7}
            assert (await again.apply(wire)).outcome == "unchanged"  # its end in the pod
            assert place.switch.far_ports()[far_port(wire)] == 100
            await again.sweep([])
            assert place.switch.far_ports() == {far_port(place.wire(1, 7)): 7}
            await again.aclose()

    run(tmp_path, main)


def test_our_bridge_is_deleted_by_hand(tmp_path):
    """While a forwarder runs its wires come back; while none does, the next one tidies their bridge up."""

    async def main(place, driver):
        wire = place.wire(0, 100)
        async with repairing(driver) as told:
            await driver.apply(wire)
            await driver.apply(lab.simple(*place.found.pods, "w1", 1))
            rows = place.switch.vsctl("list", "port", far_port(wire))
            with vlan_lab.outsider(place.found, 100) as (v4, _):
                assert await pinged(place.found.pods[0], v4, count=20)
                place.switch.vsctl("del-br", "br-nsm")
                assert await pinged(place.found.pods[0], v4, count=20)
            assert await place.switch.pings(place.found.pods[0], "10.0.1.2")
            assert place.switch.vsctl("list", "port", far_port(wire)) == rows
            assert told == []
        place.switch.vsctl("del-br", "br-nsm")
        assert place.switch.far_ports() == {far_port(wire): 100}
        again = place.make()
        await again.switch.ensure()
        assert place.switch.far_ports() == {}
        await again.apply(wire)
        with vlan_lab.outsider(place.found, 100, 252) as (v4, _):
            assert await pinged(place.found.pods[0], v4, count=20)
        await again.aclose()

    run(tmp_path, main)


def test_what_a_dead_forwarder_has_left_in_their_bridge_goes_by_its_mark(tmp_path):
    """Also where our bridge has gone; of another forwarder nothing does."""

    async def main(place, driver):
        async with another(place):
            wire = place.wire(0, 100)
            await driver.apply(wire)
            gone = await leave(place.switch.database, "forwarder:one")
            assert gone == ["bridge br-nsm", f"port {far_port(wire)}"]
            assert list(place.switch.far_ports().values()) == [7]
            await driver.apply(wire)
            place.switch.vsctl("del-br", "br-nsm")
            assert await leave(place.switch.database, "forwarder:one") == [f"port {far_port(wire)}"]
            assert await leave(place.switch.database, "forwarder:one") == []
            assert list(place.switch.far_ports().values()) == [7]

    run(tmp_path, main)


@pytest.mark.parametrize("half", ["theirs", "ours"])
def test_a_port_that_somebody_deletes_is_made_again(tmp_path, half):
    """In their bridge as in ours; the ends are those that were there."""

    async def main(place, driver):
        wire = place.wire(0, 100)
        name = far_port(wire) if half == "theirs" else names_of(wire.id)[1]
        async with repairing(driver) as told:
            await driver.apply(wire)
            index = lab.link(place.found.pods[0], "nsm-100")["ifindex"]
            with vlan_lab.outsider(place.found, 100) as (v4, _):
                for _ in range(2):
                    assert await pinged(place.found.pods[0], v4, count=20)
                    place.switch.vsctl("del-port", name)
                    assert await pinged(place.found.pods[0], v4, count=20)
        assert set(told) == {wire.id}
        assert lab.link(place.found.pods[0], "nsm-100")["ifindex"] == index
        assert place.switch.far_ports() == {far_port(wire): 100}

    run(tmp_path, main, pods=1)


def test_their_bridge_is_deleted_and_made_again(tmp_path):
    """It is said that it is not there; where it is back, the next apply joins it."""

    async def main(place, driver):
        wire = place.wire(0, 100)
        await driver.apply(wire)
        place.switch.vsctl("del-br", OUT)
        driver.switch.ports.forget()
        with pytest.raises(TunnelRefused, match=r"leads to the bridge br-ext, and .* has none"):
            await driver.apply(wire)
        assert "nsm-100" in lab.names(place.found.pods[0])
        place.switch.add_out()
        assert (await driver.apply(wire)).outcome == "unchanged"
        with vlan_lab.outsider(place.found, 100) as (v4, _):
            assert await pinged(place.found.pods[0], v4, count=20)
        assert place.switch.far_ports() == {far_port(wire): 100}
        await driver.remove(wire.id)
        assert place.switch.far_ports() == {}

    with bridge_lab.ground(tmp_path, pods=1) as place:
        driver = place.make()
        asyncio.run(main(place, driver))
        asyncio.run(driver.switches.stop())


def test_a_tag_that_somebody_changed_is_put_right_by_the_next_driver(tmp_path):
    """The port is made anew."""

    async def main(place, driver):
        wire = place.wire(0, 100)
        await driver.apply(wire)
        place.switch.vsctl("set", "port", far_port(wire), "tag=7")
        again = place.make()
        await again.apply(wire)
        assert place.switch.far_ports() == {far_port(wire): 100}
        await again.aclose()

    run(tmp_path, main, pods=1)


@pytest.mark.parametrize("programs", [("ovs-vswitchd",), ("ovsdb-server",)], ids=" ".join)
def test_a_switch_that_dies_has_the_wire_again(tmp_path, programs):
    """Its owner starts it; a wire that was closed meanwhile is in neither bridge then."""

    async def main(place, driver):
        kept, closed = place.wire(0, 100), place.wire(1, 100)
        async with repairing(driver):
            for wire in (kept, closed):
                await driver.apply(wire)
            place.switch.kill(*programs)
            with suppress(MeshError):
                await driver.remove(closed.id)
            place.switch.start_database() if programs == ("ovsdb-server",) else place.switch.start()
            with vlan_lab.outsider(place.found, 100) as (v4, _):
                assert await pinged(place.found.pods[0], v4, count=30)
            async with asyncio.timeout(20):
                while set(place.switch.far_ports()) != {far_port(kept)}:  # noqa: ASYNC110 - another program's rows
                    await asyncio.sleep(0.05)
            assert lab.names(place.found.pods[1]) == set()

    run(tmp_path, main)
