"""What a killed forwarder made and never agreed is in nobody's way, also where no sweep can see it."""

from __future__ import annotations

import asyncio

import datapath_lab as lab
import pytest

from nsmesh.datapath import linux, netns
from nsmesh.datapath.inventory import group_of
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.datapath.netlink import Batch, Netlink
from nsmesh.datapath.rtnetlink import new_veth
from nsmesh.datapath.taken import InterfaceTaken
from nsmesh.datapath.veth import DOOMED_GROUP, fresh_index, fresh_mac

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


def _half(space, name, group):
    """Make a pair as a driver does, which dies before it has marked it: no end says whose it is."""

    def make():
        with Netlink() as netlink:
            batch = Batch()
            ends = [(fresh_index(), f"{name}{end}", fresh_mac(), 1500) for end in "ab"]
            batch.put(new_veth(*ends, None, group))
            assert netlink.send(batch) == []

    netns.call_in(space, make)


def test_what_was_being_made_or_deleted_goes_and_all_else_stays():
    """An interface without owner or about to be deleted is taken away; not others', and not a wire's."""

    async def main(a, b):
        dead = LinuxDatapath(owner="half-made")
        await dead.apply(lab.simple(a, b))
        wires = lab.names(a)
        for name, group in (("begun", group_of("half-made")), ("ended", DOOMED_GROUP)):
            _half(a, name, group)
        _half(a, "others", group_of("other"))
        datapath = LinuxDatapath(owner="half-made", namespaces=lambda: [a, b])
        assert len(lab.names(a)) == len(wires) + 6
        assert await datapath.tidy() == 4
        assert lab.names(a) == {*wires, "othersa", "othersb"}
        assert lab.pings(a, "10.0.1.2")
        assert await datapath.tidy() == 0
        await datapath.aclose()
        await dead.aclose()

    with lab.spaces(2) as (a, b):
        asyncio.run(main(a, b))


def test_what_is_made_meanwhile_is_let_be():
    """Wires that come to be while it looks are whole afterwards."""

    async def main(a, b):
        _half(a, "begun", group_of("half-made"))
        datapath = LinuxDatapath(owner="half-made", namespaces=lambda: [a, b])
        made = [datapath.apply(lab.simple(a, b, f"w{number}", number)) for number in range(1, 20)]
        found, *_ = await asyncio.gather(datapath.tidy(), *made)
        assert found == 2
        assert len(lab.names(a)) == len(made)
        await datapath.aclose()

    with lab.spaces(2) as (a, b):
        asyncio.run(main(a, b))
