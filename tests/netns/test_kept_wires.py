"""Wires of each driver that others set down or delete: heard of at once, and made again as they were."""

import asyncio
import os
from pathlib import Path

import datapath_lab as lab
import kinds_lab
import pytest
from kinds_lab import KINDS, LINUX

from nsmesh.core.errors import NotFound, Refused
from nsmesh.datapath import netns
from nsmesh.datapath.veth import DOOMED_GROUP

pytestmark = pytest.mark.root


@pytest.fixture(params=KINDS)
def watching(request, tmp_path):
    """Run a scenario with a driver that has one wire, and a queue of what it tells."""

    def work(scenario, a, b):
        async def main(datapath):
            told = asyncio.Queue()
            datapath.watch(told.put_nowait)
            await datapath.apply(lab.simple(a, b))
            await scenario(datapath, lambda: asyncio.wait_for(told.get(), 5), told)

        kinds_lab.run(main, request.param, tmp_path, a, b)

    return work


@pytest.mark.parametrize("what", [("set", "nsm-1", "down"), ("del", "nsm-1")])
def test_what_others_do_is_undone(watching, what):
    """Down or deleted, the driver hears of it; the wire is back with name, index, MAC, addresses, routes."""

    async def scenario(datapath, heard, told):
        before = lab.link(a, "nsm-1"), lab.addresses(a, "nsm-1"), lab.routes(a, "nsm-1")
        assert told.empty()
        lab.run(a, "ip", "link", *what)
        assert await heard() == "w1"
        applied = await datapath.restore("w1")
        assert applied.outcome in {"changed", "created"}
        after = lab.link(a, "nsm-1"), lab.addresses(a, "nsm-1"), lab.routes(a, "nsm-1")
        for key in ("ifindex", "address", "ifname", "mtu"):
            assert after[0][key] == before[0][key]
        assert "UP" in after[0]["flags"]
        assert after[1:] == before[1:]
        assert await lab.pings_soon(a, "10.0.1.2")
        assert await lab.pings_soon(b, "fd00:1::1")

    with lab.spaces() as (a, b):
        watching(scenario, a, b)


def test_a_namespace_that_dies_is_heard_of_and_not_kept(watching):
    """The end of a namespace is told by the other end of its wire, which cannot be made again.

    The client's has no carrier then, where it is there at all.
    """

    async def scenario(datapath, heard, told):
        await asyncio.sleep(0.2)  # what a driver holds of a namespace for the moment is let go
        netns.delete(Path(b).name)
        assert await heard() == "w1"
        with pytest.raises(NotFound):
            await datapath.restore("w1")
        assert lab.carriers(a) == set()

    with lab.spaces() as (a, b):
        watching(scenario, a, b)


def test_another_namespace_of_the_same_path_is_left_alone(watching):
    """Who was given a dead workload's path does not get its wire."""

    async def scenario(datapath, heard, told):
        await asyncio.sleep(0.2)
        netns.delete(Path(b).name)
        netns.create(Path(b).name)
        assert await heard() == "w1"
        with pytest.raises(NotFound):
            await datapath.restore("w1")
        assert lab.names(b) == set()
        assert lab.carriers(a) == set()

    with lab.spaces() as (a, b):
        watching(scenario, a, b)


def test_an_end_that_its_endpoint_has_set_down_stays_down(watching):
    """An endpoint that is out of service is told, and not made to answer."""

    async def scenario(datapath, heard, told):
        (name,) = lab.names(b)
        lab.run(b, "ip", "link", "set", name, "down")
        assert await heard() == "w1"
        with pytest.raises(Refused):
            await datapath.restore("w1")
        assert "UP" not in lab.link(b, name)["flags"]

    with lab.spaces() as (a, b):
        watching(scenario, a, b)


def test_who_comes_next_has_index_and_mac(watching):
    """A wire to another namespace, under another id, has the interface that the client knows."""

    async def scenario(datapath, heard, told):
        before = lab.link(a, "nsm-1")
        await datapath.remove("w1")
        await datapath.apply(lab.simple(a, c, wire_id="w2"))
        after = lab.link(a, "nsm-1")
        assert (after["ifindex"], after["address"]) == (before["ifindex"], before["address"])
        assert told.empty()

    with lab.spaces(3) as (a, b, c):
        watching(scenario, a, b)


def test_who_comes_next_by_another_path_is_the_heir_too(watching):
    """The client's namespace is known by itself: its path, a descriptor's, is another one by then."""

    async def scenario(datapath, heard, told):
        before = lab.link(a, "nsm-1")
        await datapath.remove("w1")
        assert await lab.gone_soon(a, "nsm-1")
        await asyncio.sleep(0.2)
        descriptor = os.open(a, os.O_RDONLY)
        try:
            await datapath.apply(lab.simple(f"/proc/{os.getpid()}/fd/{descriptor}", c, wire_id="w2"))
        finally:
            os.close(descriptor)
        after = lab.link(a, "nsm-1")
        assert (after["ifindex"], after["address"]) == (before["ifindex"], before["address"])

    with lab.spaces(3) as (a, b, c):
        watching(scenario, a, b)


def test_what_is_silenced_is_down_untold_and_up_again_when_it_is_applied(watching):
    """Ends of the dead are set down, few or many at once; nobody hears of it, and the next apply mends it."""

    async def scenario(datapath, heard, told):
        wires = [lab.simple(a, b, wire_id=f"x{number}", number=number) for number in range(2, 14)]
        for wire in wires:
            await datapath.apply(wire)
        await datapath.silence(["w1", "unknown"])
        await datapath.silence([wire.id for wire in wires])
        assert not any("UP" in lab.link(b, name)["flags"] for name in lab.names(b))
        assert lab.carriers(a) == set()
        await asyncio.sleep(0.2)
        assert told.empty()
        await datapath.apply(lab.simple(a, b))
        assert "UP" in lab.link(b, "nse-1")["flags"]
        lab.run(a, "ip", "link", "set", "nsm-1", "down")
        assert await heard() == "w1"

    with lab.spaces() as (a, b):
        watching(scenario, a, b)


@pytest.mark.parametrize("watching", [LINUX], indirect=True)
def test_what_was_silenced_is_not_set_down_once_more(watching):
    """Nothing passes where the far end is down: a Close only marks the wire, who comes next is the heir."""

    async def scenario(datapath, heard, told):
        before = lab.link(a, "nsm-1")
        await datapath.silence(["w1"])
        await datapath.remove("w1")
        assert "UP" in lab.link(a, "nsm-1")["flags"]
        assert {lab.link(space, name)["group"] for space, name in ((a, "nsm-1"), (b, "nse-1"))} == {
            str(DOOMED_GROUP)
        }
        await datapath.drain()
        assert "nsm-1" not in lab.names(a)
        assert "nse-1" not in lab.names(b)
        await datapath.apply(lab.simple(a, c, wire_id="w2"))
        after = lab.link(a, "nsm-1")
        assert (after["ifindex"], after["address"]) == (before["ifindex"], before["address"])
        assert "LOWER_UP" in after["flags"]
        await datapath.remove("w2")
        assert "UP" not in lab.link(a, "nsm-1")["flags"]
        assert told.empty()

    with lab.spaces(3) as (a, b, c):
        watching(scenario, a, b)
