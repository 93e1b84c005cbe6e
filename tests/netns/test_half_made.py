"""What a killed forwarder made and never agreed is in nobody's way, also where no sweep can see it."""

from __future__ import annotations

import asyncio

import datapath_lab as lab
import pytest

from nsmesh.datapath import linux
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.taken import InterfaceTaken

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def test_a_wire_in_the_way_is_named_and_can_be_removed():
    """The error names its wire; ``remove`` finds it, though nobody told the driver to look there."""

    async def main(a, b, c):
        dead = LinuxDatapath(owner="half-made")
        await dead.apply(lab.simple(a, b))
        datapath = LinuxDatapath(owner="half-made")
        assert await datapath.has() == []
        with pytest.raises(InterfaceTaken) as caught:
            await datapath.apply(lab.simple(a, c, "w2"))
        assert caught.value.owner == "w1"
        await datapath.remove("w1")
        await datapath.apply(lab.simple(a, c, "w2"))
        assert lab.pings(a, "10.0.1.2")
        await datapath.drain()
        assert lab.names(b) == set()
        await datapath.aclose()
        await dead.aclose()

    with lab.spaces(3) as (a, b, c):
        asyncio.run(main(a, b, c))


def test_a_wire_of_another_driver_is_a_strangers():
    """Another forwarder's wires are not ours to judge: the error names no owner."""

    async def main(a, b, c):
        other, datapath = LinuxDatapath(owner="other"), LinuxDatapath(owner="half-made")
        await other.apply(lab.simple(a, b))
        with pytest.raises(InterfaceTaken) as caught:
            await datapath.apply(lab.simple(a, c, "w2"))
        assert not caught.value.owner
        await datapath.remove("w1")
        assert lab.pings(a, "10.0.1.2")
        await datapath.aclose()
        await other.aclose()

    with lab.spaces(3) as (a, b, c):
        asyncio.run(main(a, b, c))


def test_wires_that_never_were_are_looked_for_once(monkeypatch):
    """Closes of what was not made share one look through namespaces; what a dead one left is known then."""

    async def main(a, b):
        looks = []
        vanished = [f"{a}-{number}" for number in range(100)]  # so many that a look gives way to others
        survey = linux.survey
        monkeypatch.setattr(linux, "survey", lambda *more: looks.append(more) or survey(*more))
        dead = LinuxDatapath(owner="half-made")
        await dead.apply(lab.simple(a, b))
        datapath = LinuxDatapath(owner="half-made", namespaces=lambda: [*vanished, a, b])
        await asyncio.gather(*(datapath.remove(f"never-{number}") for number in range(20)))
        assert len(looks) == 1
        await datapath.remove("never-again")
        assert len(looks) == 1
        await datapath.remove("w1")
        await datapath.drain()
        assert lab.names(a) == set()
        assert len(looks) == 1
        await datapath.aclose()
        await dead.aclose()

    with lab.spaces(2) as (a, b):
        asyncio.run(main(a, b))
