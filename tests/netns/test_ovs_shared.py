"""Wires through an Open vSwitch of somebody else's: nothing of theirs changes, and nothing of ours stays."""

import asyncio
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import datapath_lab as lab
import pytest
from ovs_lab import pairs
from their_switch import TheirSwitch, has_module

from nsmesh.core.errors import Conflict, Unavailable
from nsmesh.datapath.ovs_keeper import keeping

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="Open vSwitch is not installed"),
]


@pytest.fixture(params=["netdev", "system"])
def kind(request):
    """Give each kind of datapath that our bridge may have: in user space, and the kernel's own."""
    if request.param == "system" and not has_module():
        pytest.skip("the module openvswitch of the kernel is not here")
    return request.param


@contextmanager
def beside(tmp_path, kind="netdev"):
    """Yield a switch of somebody else's that runs, what makes drivers of it, and two pods."""
    with lab.spaces(5) as (space, a, b, c, d):
        switch = TheirSwitch(tmp_path / "theirs", space, c, d)
        try:
            switch.start()
            yield switch, lambda **given: switch.driver(tmp_path / "ours", [a, b], kind=kind, **given), a, b
        finally:
            switch.end()


async def applied(datapath, wire):
    """Whether a wire could be made: a switch that is back may not be known to be."""
    with suppress(Unavailable):
        return await datapath.apply(wire)


@contextmanager
def stream(pod, address="10.0.1.2"):
    """Send 400 pings in 8 s or more; all must have been answered, and the block is over before."""
    command = ["nsenter", f"--net={pod}", "ping", "-q", "-c", "400", "-i", "0.02", "-W", "5", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield
        assert process.poll() is None
        assert "400 packets transmitted, 400 received" in process.communicate(timeout=60)[0]


@pytest.mark.parametrize("spares", [0, 4], ids=["own ports", "ports in advance"])
def test_a_wire_is_made_and_the_end_leaves_the_switch_as_it_was(tmp_path, spares, kind):
    """Database, flows, devices: byte for byte the same afterwards, what is theirs also meanwhile."""

    async def main(switch, make, a, b):
        before, theirs = switch.everything(), switch.theirs()
        datapath = make(spares=spares)
        async with keeping(datapath.switches):
            while (await pairs(datapath.switch))[0] < spares:  # noqa: ASYNC110 - another program's rows
                await asyncio.sleep(0.05)
            assert (await datapath.apply(lab.simple(a, b))).outcome == "created"
            assert lab.pings(a, "10.0.1.2")
            assert lab.pings(b, "fd00:1::1")
            assert switch.works()
            assert switch.theirs() == theirs
            assert (await datapath.apply(lab.simple(a, b))).outcome == "unchanged"
            await datapath.remove("w1")
            assert await datapath.switch.ports.owners() == {}
            await datapath.apply(lab.simple(a, b, "w2", 2))
            assert lab.pings(a, "10.0.2.2")
            await datapath.remove("w2")
        await datapath.switches.stop()
        await datapath.aclose()
        assert switch.everything() == before
        assert not Path(datapath.switch.spares.place).exists()
        assert switch.works()
        assert lab.names(a) == lab.names(b) == set()

    with beside(tmp_path, kind) as given:
        asyncio.run(main(*given))


def test_a_forwarder_that_starts_again_loses_no_packet_and_sweeps(tmp_path, kind):
    """Pings go on meanwhile; the wire is unchanged, one without owner goes, and another's stays."""

    async def main(switch, make, a, b):
        other = make(name="two", bridge="br-two")
        await other.apply(lab.simple(a, b, "x", 9))
        first = make()
        await first.apply(lab.simple(a, b))
        await first.apply(lab.simple(a, b, "w2", 2))
        with stream(a):
            await asyncio.sleep(0.5)
            await first.aclose()
            theirs = switch.theirs()
            second = make()
            async with keeping(second.switches):
                assert (await second.apply(lab.simple(a, b))).outcome == "unchanged"
                assert {gone.id for gone in await second.sweep({"w1"})} == {"w2"}
                await asyncio.sleep(0.5)
        assert set(await second.switch.ports.owners()) == {"w1"}
        assert set(await other.switch.ports.owners()) == {"x"}
        assert lab.pings(a, "10.0.9.2")
        assert switch.theirs() == theirs
        for one in (second, other):
            for existing in await one.has():
                await one.remove(existing.id)
            await one.switches.stop()
            await one.aclose()

    with beside(tmp_path, kind) as given:
        asyncio.run(main(*given))


@pytest.mark.parametrize(
    "programs", [("ovs-vswitchd",), ("ovsdb-server",), ("ovs-vswitchd", "ovsdb-server")], ids=" ".join
)
def test_a_switch_that_dies_is_left_to_its_owner_and_its_wires_come_back(tmp_path, programs, capfd, kind):
    """It is not started by us; a wire that is closed meanwhile is not there afterwards, the other one is."""

    async def main(switch, make, a, b):
        datapath = make(spares=4)
        async with keeping(datapath.switches):
            await datapath.apply(lab.simple(a, b))
            await datapath.apply(lab.simple(a, b, "w2", 2))
            switch.kill(*programs)
            await asyncio.sleep(0.5)
            assert [switch.pid(program) for program in programs] == [0] * len(programs)
            with suppress(Unavailable):
                await datapath.remove("w2")
            async with asyncio.timeout(20):
                while "nsm-2" in lab.names(a):  # noqa: ASYNC110 - the kernel's names
                    await asyncio.sleep(0.05)
            if "ovsdb-server" in programs:
                switch.start_database()
            if "ovs-vswitchd" in programs:
                switch.start()
            assert await switch.pings(a)
            async with asyncio.timeout(20):
                while set(await datapath.switch.ports.owners()) != {"w1"}:  # noqa: ASYNC110 - another program's rows
                    await asyncio.sleep(0.05)
            async with asyncio.timeout(20):
                while not await applied(datapath, lab.simple(a, b, "w3", 3)):  # noqa: ASYNC110 - their daemons
                    await asyncio.sleep(0.05)
            assert await switch.pings(a, "10.0.3.2")
            assert switch.works()
            for number in (1, 3):
                await datapath.remove(f"w{number}")
        await datapath.switches.stop()
        await datapath.aclose()

    with beside(tmp_path, kind) as given:
        asyncio.run(main(*given))
    assert "is gone: no wire of it works until whoever runs it starts it" in "".join(capfd.readouterr())


def test_a_bridge_that_others_delete_comes_back_with_its_wires_when_the_switch_does(tmp_path):
    """A database that is new: the bridge and the ports to interfaces are made anew, and the wire works."""

    async def main(switch, make, a, b):
        datapath = make(spares=4)
        async with keeping(datapath.switches):
            await datapath.apply(lab.simple(a, b))
            switch.kill("ovs-vswitchd", "ovsdb-server")
            (switch.folder / "conf.db").unlink()
            switch.start_database()
            switch.vsctl("--no-wait", "init")
            switch.start_switch()
            assert await switch.pings(a)
            await datapath.remove("w1")
        await datapath.switches.stop()
        await datapath.aclose()

    with beside(tmp_path) as given:
        asyncio.run(main(*given))


def test_bridges_of_others_are_not_taken(tmp_path):
    """One that nobody of us has made, and one of another forwarder: with the name of the option."""

    async def main(switch, make):
        for datapath, said in (
            (make(bridge="br-theirs"), "a bridge br-theirs, which no forwarder has made"),
            (make(name="two"), "a bridge br-nsm, which is that of forwarder:one"),
        ):
            if datapath.switch.bridge == "br-nsm":
                first = make()
                await first.switch.ensure()
            with pytest.raises(Conflict, match=said) as told:
                await datapath.switch.ensure()
            assert "NSM_BRIDGE_NAME" in told.value.remedy
            await datapath.aclose()
        assert switch.works()
        await first.switches.stop()
        await first.aclose()

    with beside(tmp_path) as (switch, make, _, _):
        asyncio.run(main(switch, make))
