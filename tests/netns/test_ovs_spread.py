"""Many wires of interfaces on a node: several switches share them, and each has ports in advance."""

import asyncio
import os
import shutil
import signal

import datapath_lab as lab
import pytest
from ovs_lab import pairs, scenario

from nsmesh.datapath import ovs_spread, ovs_switches
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_programs import running

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="Open vSwitch is not installed"),
]
SIZE, WIRES, COUNT = 2, 8, 20


@pytest.fixture
def small(monkeypatch):
    """Have a switch be full with eight wires."""
    monkeypatch.setattr(ovs_spread, "WIRES", WIRES)
    monkeypatch.setattr(ovs_spread, "RESERVE", WIRES // 2)


async def owners(datapath):
    """Return the wires of each switch."""
    return [set(await switch.ports.owners()) for switch in datapath.switches]


async def settled(datapath, count):
    """Wait until so many switches take wires, and the first one has ports in advance, or wires."""
    async with asyncio.timeout(40):
        while len(datapath.switches._spread.ready) != count or not sum(await pairs(datapath.switch)):  # noqa: ASYNC110 - daemons
            await asyncio.sleep(0.02)


async def populated(datapath, a, b):
    """Make wires one after another, and have each next switch get ready meanwhile."""
    for number in range(1, COUNT + 1):
        await datapath.apply(lab.simple(a, b, f"w{number}", number))
        await settled(datapath, 1 + (number + WIRES // 2 - 1) // WIRES)


def test_many_wires_are_shared_by_switches_and_a_new_driver_goes_on(tmp_path, small):
    """All carry frames, by ports in advance; a driver that starts again makes nothing anew."""

    async def body(make, a, b):
        datapath = make()
        async with keeping(datapath.switches):
            await settled(datapath, 1)
            await populated(datapath, a, b)
            assert [len(one) for one in await owners(datapath)] == [WIRES, WIRES, COUNT - 2 * WIRES]
            assert [(await pairs(one))[1] for one in datapath.switches] == [WIRES, WIRES, COUNT - 2 * WIRES]
            for number in range(1, COUNT + 1):
                assert lab.pings(a, f"10.0.{number}.2"), number
        before = await owners(datapath)
        await datapath.aclose()
        later = make()
        async with keeping(later.switches):
            for number in (1, WIRES + 1, COUNT):
                wire = lab.simple(a, b, f"w{number}", number)
                assert (await later.apply(wire)).outcome == "unchanged"
            assert await owners(later) == before
            kept = {f"w{number}" for number in range(2, COUNT + 1)}
            assert {one.id for one in await later.sweep(kept)} == {"w1"}
            await later.apply(lab.simple(a, b, "w0", 30))
            assert "w0" in (await owners(later))[0]
            assert lab.pings(a, "10.0.30.2")
        await later.aclose()

    scenario(tmp_path, body, pods=2, spares=SIZE)


def test_a_killed_switch_is_back_with_its_wires_and_the_others_lose_nothing(tmp_path, small):
    """The second one dies: a wire of it carries frames again, unasked."""

    async def body(make, a, b):
        datapath = make()
        async with keeping(datapath.switches):
            await settled(datapath, 1)
            await populated(datapath, a, b)
            argv = ["nsenter", f"--net={a}", "ping", "-n", "-q", "-i", "0.01", "-c", "200", "10.0.1.2"]
            stream = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
            pid_file = datapath.switch.directory / "2" / "ovs-vswitchd.pid"
            dead = running(pid_file, "ovs-vswitchd")
            os.kill(dead, signal.SIGKILL)
            async with asyncio.timeout(30):
                while running(pid_file, "ovs-vswitchd") in {0, dead}:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.02)
                while not await asyncio.to_thread(lab.pings, a, f"10.0.{WIRES + 1}.2"):  # noqa: ASYNC110 - daemons
                    await asyncio.sleep(0.02)
            said, _ = await stream.communicate()
            assert b" 0% packet loss" in said, said
        await datapath.aclose()

    scenario(tmp_path, body, pods=2, spares=SIZE)


def test_switches_that_are_not_needed_any_more_end(tmp_path, small, monkeypatch):
    """Where there is room enough without them; the first one keeps its ports in advance."""
    monkeypatch.setattr(ovs_switches, "LINGER", 0.3)

    async def body(make, a, b):
        datapath = make()
        async with keeping(datapath.switches):
            await settled(datapath, 1)
            await populated(datapath, a, b)
            await asyncio.gather(*(datapath.remove(f"w{number}") for number in range(1, COUNT + 1)))
            async with asyncio.timeout(40):
                while datapath.switches.more:  # noqa: ASYNC110 - daemons
                    await asyncio.sleep(0.05)
            await datapath.apply(lab.simple(a, b))
            assert lab.pings(a, "10.0.1.2")
            assert (await pairs(datapath.switch))[1] == 1
        await datapath.aclose()

    scenario(tmp_path, body, pods=2, spares=SIZE)
