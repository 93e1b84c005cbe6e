"""Namespaces that the driver holds for a moment: never mistaken for others, never kept alive for long."""

import asyncio
from pathlib import Path

import datapath_lab as lab
import pytest

from nsmesh.datapath import netns
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.places import HELD, Doors

pytestmark = pytest.mark.root


def test_another_namespace_at_the_same_path_is_seen():
    """A pod that comes anew under its old path gets its wire: nothing goes into the old namespace."""

    async def main(a, b):
        datapath = LinuxDatapath()
        await datapath.apply(lab.simple(a, b, "w1", 1))
        netns.delete(Path(b).name)
        netns.create(Path(b).name)
        assert (await datapath.apply(lab.simple(a, b, "w1", 1))).outcome != "unchanged"
        # the first packet may be lost while the kernel's own work on the new link is under way
        assert any(lab.pings(b, "10.0.1.1") for _ in range(3))
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_a_dead_namespace_goes_soon():
    """The far end of a pod's wire is gone a moment after the pod, although its namespace was held."""

    async def main(a, b):
        datapath = LinuxDatapath()
        await datapath.apply(lab.simple(a, b, "w1", 1))
        netns.delete(Path(b).name)
        for _ in range(50):
            await asyncio.sleep(HELD)
            if not lab.names(a):
                break
        assert lab.names(a) == set()
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_one_within_another_opens_its_own():
    """While an operation has a namespace, another one gets a socket of its own; a later one shares it."""

    async def main(a):
        doors = Doors()
        with doors.open([a]) as outer, doors.open([a]) as inner:
            assert outer[a] is not inner[a]
            kept = outer[a]
        with doors.open([a]) as later:
            assert later[a] is kept
        await asyncio.sleep(2 * HELD)
        with doors.open([a]) as last:
            assert last[a] is not kept
        doors.close()

    with lab.spaces(1) as (a,):
        asyncio.run(main(a))
