"""Wires of one turn of the loop are made together; what happens in between leaves nothing half done."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import datapath_lab as lab
import pytest

from nsmesh.core.errors import Invalid, MeshError, NotFound
from nsmesh.datapath import netns
from nsmesh.datapath.linux import LinuxDatapath

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def ip_wire(a, b, number=1):
    """Return a wire that carries IP alone: it has filters, so it waits for others between its two parts."""
    return replace(lab.simple(a, b, f"w{number}", number), payload="IP")


async def begun(datapath, wire):
    """Return the task of an apply that has made its interfaces and gives way to others."""
    task = asyncio.create_task(datapath.apply(wire))
    await asyncio.sleep(0)
    assert lab.names(wire.a.netns)
    assert not task.done()
    return task


def test_wires_of_one_turn_all_work_and_are_all_taken_away():
    """Twelve wires asked for at once all carry packets, share a namespace, and leave nothing behind."""

    async def main(*spaces):
        *near, far = spaces
        datapath = LinuxDatapath()
        wires = [ip_wire(near[number % len(near)], far, number) for number in range(1, 13)]
        applied = await asyncio.gather(*map(datapath.apply, wires))
        assert [one.outcome for one in applied] == ["created"] * len(wires)
        for number, wire in enumerate(wires, 1):
            assert lab.pings(wire.a.netns, f"10.0.{number}.2")
        again = await asyncio.gather(*map(datapath.apply, wires))
        assert [one.outcome for one in again] == ["unchanged"] * len(wires)
        for wire in wires:
            await datapath.remove(wire.id)
        await datapath.drain()
        assert [lab.names(space) for space in spaces] == [set()] * len(spaces)
        await datapath.aclose()

    with lab.spaces(4) as spaces:
        asyncio.run(main(*spaces))


def test_a_caller_that_leaves_in_between_leaves_no_interface():
    """An apply that is cancelled after its interfaces are made takes them away; the other wires stand."""

    async def main(a, b, c):
        datapath = LinuxDatapath()
        gone = await begun(datapath, ip_wire(a, b))
        other = asyncio.create_task(datapath.apply(ip_wire(c, b, 2)))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert (await other).outcome == "created"
        await datapath.drain()
        assert lab.names(a) == set()
        assert len(lab.names(b)) == 1
        assert lab.pings(c, "10.0.2.2")
        await datapath.aclose()

    with lab.spaces(3) as (a, b, c):
        asyncio.run(main(a, b, c))


def test_another_namespace_at_the_path_gets_nothing():
    """A namespace that is replaced in between is not taken for the first: an error, and no interface left."""

    async def main(a, b):
        datapath = LinuxDatapath()
        task = await begun(datapath, ip_wire(a, b))
        netns.delete(a.rpartition("/")[2])
        netns.create(a.rpartition("/")[2])
        with pytest.raises(NotFound, match="another has its path"):
            await task
        await datapath.drain()
        assert lab.names(a) == lab.names(b) == set()
        await datapath.aclose()

    with lab.spaces(2) as (a, b):
        asyncio.run(main(a, b))


def test_a_sweep_in_between_spares_what_is_being_made():
    """A sweep of all that nobody owns does not take interfaces whose wire is not finished yet."""

    async def main(a, b):
        datapath = LinuxDatapath(namespaces=lambda: [a, b])
        task = await begun(datapath, ip_wire(a, b))
        # The survey reads both namespaces before it gives way, so it sees the wire as it is being made.
        assert await datapath.sweep([]) == []
        assert (await task).outcome == "created"
        assert lab.pings(a, "10.0.1.2")
        await datapath.remove("w1")
        await datapath.aclose()

    with lab.spaces(2) as (a, b):
        asyncio.run(main(a, b))


def test_a_name_that_two_want_at_once_is_the_firsts():
    """Of two wires of one turn with one interface name the first stands, and the other hears who has it."""

    async def main(a, b, c):
        datapath = LinuxDatapath()
        first, second = ip_wire(a, b), replace(ip_wire(a, c), id="w2")
        one, other = await asyncio.gather(
            datapath.apply(first), datapath.apply(second), return_exceptions=True
        )
        assert not isinstance(one, BaseException), one
        assert isinstance(other, MeshError)
        assert lab.pings(a, "10.0.1.2")
        await datapath.drain()
        assert lab.names(c) == set()
        await datapath.aclose()

    with lab.spaces(3) as (a, b, c):
        asyncio.run(main(a, b, c))


def test_one_namespace_by_two_paths_with_one_name_is_refused(tmp_path):
    """Both ends cannot have one name in one namespace, also where two paths lead to it."""

    async def main(a, link):
        datapath = LinuxDatapath()
        wire = ip_wire(a, link)
        same = replace(wire, b=replace(wire.b, name=wire.a.name))
        with pytest.raises(Invalid, match="in one namespace"):
            await datapath.apply(same)
        assert lab.names(a) == set()
        await datapath.aclose()

    link = tmp_path / "link"
    with lab.spaces(1) as (a,):
        link.symlink_to(a)
        asyncio.run(main(a, str(link)))
