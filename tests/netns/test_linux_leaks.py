import asyncio
import gc
import os
import sys
import threading
from pathlib import Path

import datapath_lab as lab
import pytest

from nsmesh.datapath import payload_filter
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.places import HELD

pytestmark = pytest.mark.root

WIRES = 200


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def resident():
    """Return the resident memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


@pytest.mark.timeout(120)
def test_three_generations_leave_no_trace():
    """200 wires, three times: links, descriptors, threads and memory are level after each teardown."""

    async def generation(datapath, clients, hub):
        for number in range(WIRES):
            await datapath.apply(lab.simple(clients[number % len(clients)], hub, f"w{number}", number))
        await asyncio.sleep(2 * HELD)
        held = descriptors()  # nothing of any namespace is kept open while the wires stand
        assert len(lab.names(hub)) == WIRES
        for number in range(WIRES):
            await datapath.remove(f"w{number}")
        await datapath.drain()
        for space in (*clients, hub):
            assert lab.names(space) == set()
        await asyncio.sleep(2 * HELD)
        gc.collect()
        return held, descriptors(), resident()

    async def main(*spaces):
        payload_filter.lacks()  # its program and map are the process's, to its end: they are there by now
        gc.collect()  # what earlier tests dropped is not counted
        before, blocks = descriptors(), []
        datapath = LinuxDatapath()
        marks = []
        for _ in range(3):
            marks.append(await generation(datapath, spaces[:-1], spaces[-1]))
            blocks.append(sys.getallocatedblocks())
        # one more: that of its own namespace
        assert [mark[:2] for mark in marks] == [(before + 1, before + 1)] * 3
        assert marks[2][2] - marks[0][2] < 2
        assert blocks[2] - blocks[1] < WIRES  # less than one object of any kind for each wire
        await datapath.aclose()
        assert descriptors() == before
        assert threading.active_count() == threads

    threads = threading.active_count()
    with lab.spaces(5) as spaces:
        asyncio.run(main(*spaces))


def test_a_thousandth_wire_costs_as_much_as_the_first():
    """A hub that has many wires already takes one more as cheaply as at the start (with room for noise)."""

    async def main(a, hub):
        datapath = LinuxDatapath()
        costs = []
        for number in range(300):
            start = os.times()
            await datapath.apply(lab.simple(a, hub, f"w{number}", number))
            end = os.times()
            costs.append(end.user + end.system - start.user - start.system)
        # CPU seconds in ticks of 10 ms: sums of a hundred tell more than single ones
        assert sum(costs[200:]) < 3 * sum(costs[:100]) + 0.05
        await datapath.sweep([])
        await datapath.aclose()

    with lab.spaces() as (a, hub):
        asyncio.run(main(a, hub))
