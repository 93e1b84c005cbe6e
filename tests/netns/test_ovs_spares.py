"""Ports that a switch has in advance: wires take them, give them back, and find them again."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import datapath_lab as lab
import ovs_lab
import pytest

from nsmesh.datapath import netns, redirect
from nsmesh.datapath.ovs import names_of
from nsmesh.datapath.ovs_database import transact
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_programs import running
from nsmesh.datapath.ovs_rows import select
from nsmesh.datapath.ovs_wear import command

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="Open vSwitch is not installed"),
]
SIZE = 4


def scenario(tmp_path, body):
    """Run ``body`` with what makes drivers of one node with ports in advance, and two pods."""
    ovs_lab.scenario(tmp_path, body, pods=2, spares=SIZE)


async def state(datapath):
    """Return how many pairs are free, and how many are in use."""
    return await ovs_lab.pairs(datapath.switch)


async def filled(datapath):
    """Wait until pairs are there."""
    async with asyncio.timeout(20):
        while (await state(datapath))[0] < SIZE:  # noqa: ASYNC110 - rows of another process
            await asyncio.sleep(0.02)


async def looks(datapath):
    """Return how often the switch has looked at all of its ports."""
    await asyncio.sleep(1.2)  # the kernel tells of some changes up to a second late
    said = await command(datapath.switch.directory / "ovs-vswitchd.ctl", "coverage/show")
    return int(re.search(r"^bridge_reconfigure .*total: (\d+)", said, re.MULTILINE)[1])


def test_a_wire_takes_ports_that_are_there_and_the_switch_does_not_look_at_them(tmp_path):
    """Frames of both families pass, nothing of the switch is looked at, and the ports serve the next wire."""

    async def body(make, a, b):
        datapath = make()
        async with keeping(datapath.switches):
            await filled(datapath)
            before = await looks(datapath)
            wire = lab.simple(a, b)
            assert (await datapath.apply(wire)).outcome == "created"
            (ports,) = (await datapath.switch.ports.owners()).values()
            assert (await datapath.apply(wire)).outcome == "unchanged"
            assert lab.pings(a, "10.0.1.2")
            assert lab.pings(b, "fd00:1::1")
            assert await state(datapath) == (SIZE - 1, 1)
            await datapath.remove(wire.id)
            assert await datapath.switch.ports.owners() == {}
            assert await state(datapath) == (SIZE, 0)
            assert await looks(datapath) == before
            again = [lab.simple(a, b, f"v{number}", number) for number in range(1, SIZE)]
            for one in again:
                await datapath.apply(one)
            assert set(ports) & set().union(*(await datapath.switch.ports.owners()).values())
            for number in range(1, SIZE):
                assert lab.pings(a, f"10.0.{number}.2"), number
        await datapath.aclose()

    scenario(tmp_path, body)


def test_more_wires_than_ports_in_advance_all_carry_frames(tmp_path):
    """Five times as many at once: each has two ports of its own, and what is free is not in use."""

    async def body(make, a, b):
        datapath = make()
        async with keeping(datapath.switches):
            wires = [lab.simple(a, b, f"w{number}", number) for number in range(1, 5 * SIZE + 1)]
            await asyncio.gather(*map(datapath.apply, wires))
            owners = await datapath.switch.ports.owners()
            ports = [name for names in owners.values() for name in names]
            assert len(owners) == len(wires)
            assert len(ports) == len(set(ports)) == 2 * len(wires)
            for number in range(1, 5 * SIZE + 1):
                assert lab.pings(a, f"10.0.{number}.2"), number
            await asyncio.gather(*(datapath.remove(wire.id) for wire in wires))
            async with asyncio.timeout(20):  # interfaces are deleted soon after they are down
                while lab.names(a) | lab.names(b):  # noqa: ASYNC110 - the kernel's
                    await asyncio.sleep(0.02)
                while (await state(datapath))[0] > 2 * SIZE:  # noqa: ASYNC110 - rows of another process
                    await asyncio.sleep(0.02)
        await datapath.aclose()

    scenario(tmp_path, body)


def test_a_driver_that_ends_loses_no_frame_and_the_next_one_goes_on(tmp_path):
    """A hundred pings a second pass through driver after driver; a wire without owner gives ports back."""

    async def body(make, a, b):
        first = make()
        await first.switch.ensure()
        await first.switch.spares.fill()
        await first.apply(lab.simple(a, b))
        argv = ["nsenter", f"--net={a}", "ping", "-n", "-q", "-i", "0.01", "-c", "150", "10.0.1.2"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as pings:
            await first.aclose()
            for _ in range(3):
                second = make()
                await second.has()
                assert (await second.apply(lab.simple(a, b))).outcome == "unchanged"
                assert await state(second) == (SIZE - 1, 1)
                await second.aclose()
            said = await asyncio.to_thread(pings.communicate, timeout=20)
        assert " 0% packet loss" in said[0]
        third = make(spares=0)
        assert {gone.id for gone in await third.sweep([])} == {"w1"}
        assert await state(third) == (SIZE, 0)
        assert lab.names(a) == set()
        await third.aclose()

    scenario(tmp_path, body)


def test_a_switch_that_is_killed_comes_back_with_wires_and_free_ports(tmp_path):
    """After the death of ovs-vswitchd a wire that was there carries frames, and so does a new one."""

    async def body(make, a, b):
        datapath = make()
        async with keeping(datapath.switches):
            await filled(datapath)
            await datapath.apply(lab.simple(a, b))
            pid_file = datapath.switch.directory / "ovs-vswitchd.pid"
            dead = running(pid_file, "ovs-vswitchd")
            os.kill(dead, signal.SIGKILL)
            async with asyncio.timeout(20):
                while not await asyncio.to_thread(lab.pings, a, "10.0.1.2"):  # noqa: ASYNC110 - the kernel's
                    await asyncio.sleep(0.02)
            assert running(pid_file, "ovs-vswitchd") not in {0, dead}
            await datapath.apply(lab.simple(a, b, "w2", 2))
            assert lab.pings(a, "10.0.2.2")
            assert (await state(datapath))[1] == 2
        await datapath.aclose()

    scenario(tmp_path, body)


def test_ports_whose_other_ends_are_gone_are_taken_away(tmp_path):
    """A driver that finds them so makes others; a wire that had some is made anew and carries frames."""

    async def body(make, a, b):
        first = make()
        await first.switch.ensure()
        await first.switch.spares.fill()
        await first.apply(lab.simple(a, b))
        await first.aclose()
        netns.delete(Path(first.switch.spares.place).name)
        async with asyncio.timeout(20):
            while lab.names(a):  # noqa: ASYNC110 - the kernel takes a namespace down a little later
                await asyncio.sleep(0.02)
        second = make()
        await second.switch.ensure()
        await second.switch.spares.fill()
        assert await state(second) == (SIZE, 0)
        await second.apply(lab.simple(a, b))
        assert lab.pings(a, "10.0.1.2")
        rows = (await transact(second.switch.database, select("Interface", ["name"])))[0]["rows"]
        assert len([row for row in rows if row["name"].startswith("nsm")]) == 2 * SIZE
        await second.aclose()

    scenario(tmp_path, body)


def test_a_kernel_that_cannot_lead_frames_gives_wires_ports_of_their_own(tmp_path, monkeypatch):
    """The first wire finds it out and works all the same, as the next one does; what was made goes."""
    monkeypatch.setattr(redirect, "join", lambda *_: "Operation not supported")

    async def body(make, a, b):
        datapath = make()
        async with keeping(datapath.switches):
            await filled(datapath)
            for number in (1, 2):
                await datapath.apply(lab.simple(a, b, f"w{number}", number))
                assert lab.pings(a, f"10.0.{number}.2")
            async with asyncio.timeout(20):
                while await state(datapath) != (0, 0):  # noqa: ASYNC110 - rows of another process
                    await asyncio.sleep(0.02)
            assert set(await datapath.switch.ports.owners()) == {"w1", "w2"}
            for wire in ("w1", "w2"):
                await datapath.remove(wire)
        await datapath.aclose()

    scenario(tmp_path, body)


def test_a_wire_of_long_frames_has_ports_of_its_own(tmp_path):
    """And one that becomes such gives the others up; short again it stays as it is."""

    async def body(make, a, b):
        datapath = make()
        await datapath.switch.ensure()
        await datapath.switch.spares.fill()
        wire = lab.simple(a, b)
        await datapath.apply(wire)
        assert (await state(datapath))[1] == 1
        long = replace(wire, a=replace(wire.a, mtu=9000), b=replace(wire.b, mtu=9000))
        await datapath.apply(long)
        (ports,) = (await datapath.switch.ports.owners()).values()
        assert sorted(ports) == sorted(names_of("w1"))
        ping = ["nsenter", f"--net={a}", "ping", "-M", "do", "-s", "8000", "-c1", "-W2", "10.0.1.2"]
        assert (await asyncio.to_thread(subprocess.run, ping, check=False)).returncode == 0
        await datapath.apply(wire)
        (ports,) = (await datapath.switch.ports.owners()).values()
        assert sorted(ports) == sorted(names_of("w1"))
        await datapath.remove("w1")
        await datapath.aclose()

    scenario(tmp_path, body)
