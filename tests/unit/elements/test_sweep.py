"""Sweep: wires without a connection go away."""

import asyncio
from contextlib import asynccontextmanager

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.core.metrics import DECLARED
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.datapath.base import CrossConnect, KernelPort
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements.sweep import AGAIN, Sweep
from nsmesh.elements.update_path import UpdatePath
from nsmesh.journal.memory import MemoryJournal
from nsmesh.model.messages import Connection, NetworkServiceRequest

LIFETIME = 60.0


class Wire(Element):
    """Makes a wire and takes it away; may fail to."""

    def __init__(self, datapath):
        self.datapath = datapath

    async def request(self, call, request, next):
        await self.datapath.apply(wire(request.connection.id))
        return await next.request(call, request)

    async def close(self, call, connection, next):
        await self.datapath.remove(connection.id)


def wire(name):
    return CrossConnect(name, KernelPort(f"/a/{name}", "nsm-1"), KernelPort(f"/b/{name}", "nsm-1"))


@asynccontextmanager
async def forwarder(datapath, journal=None):
    begin = Begin(journal)
    sweep = Sweep(datapath, begin, LIFETIME, journal)
    made = chain(UpdatePath("f"), begin, sweep, Wire(datapath), name="f", clock=VirtualClock())
    async with made.running():
        await asyncio.sleep(0.1)
        yield made


def request(name):
    return NetworkServiceRequest(connection=Connection(id=name))


def names(datapath):
    return {interface.wire_id for interface in datapath.kernel.interfaces.values()}


def test_what_a_dead_forwarder_left_goes_after_a_lifetime_and_what_was_asked_for_again_stays():
    """A wire that nobody asked for again within the life of a token belonged to nobody."""

    async def main():
        datapath = FakeDatapath()
        swept = DECLARED["nsm_sweep_wires"].values.get((), 0)
        for name in ("gone", "comes-back"):
            await datapath.apply(wire(name))
        async with forwarder(datapath) as made:
            await asyncio.sleep(LIFETIME - 1)
            await made.request(Call(), request("comes-back"))
            assert names(datapath) == {"gone", "comes-back"}
            await asyncio.sleep(2)
            assert names(datapath) == {"comes-back"}
            await asyncio.sleep(5 * LIFETIME)
            assert names(datapath) == {"comes-back"}
        assert DECLARED["nsm_sweep_wires"].values[()] == swept + 1

    run(main())


def test_a_wire_whose_close_failed_is_removed_soon():
    """The connection is forgotten all the same, so somebody has to look after its wire."""

    async def main():
        datapath = FakeDatapath()
        async with forwarder(datapath) as made:
            answer = await made.request(Call(), request("c-0"))
            datapath.fail("remove", Unavailable("the kernel is busy"))
            try:
                await made.close(Call(), answer)
            except MeshError:
                assert names(datapath) == {"c-0"}
            await asyncio.sleep(AGAIN + 0.1)
            assert names(datapath) == set()

    run(main())


def test_what_a_whole_journal_does_not_have_goes_at_once():
    """It was made by a forwarder that was killed before it answered; what was agreed stays."""

    async def main():
        datapath, kept = FakeDatapath(), {}
        async with forwarder(datapath, MemoryJournal(kept)) as made:
            await made.request(Call(), request("agreed"))
        await datapath.apply(wire("half-made"))
        async with forwarder(datapath, MemoryJournal(kept)):
            assert names(datapath) == {"agreed"}

    run(main())


def test_a_journal_that_is_begun_anew_condemns_nothing_until_a_lifetime_is_over():
    """Its predecessor may have known whose the wires are; after a sweep it knows all that there is."""

    async def main():
        datapath, kept = FakeDatapath(), {}
        await datapath.apply(wire("old"))
        for _ in range(2):
            async with forwarder(datapath, MemoryJournal(kept)) as made:
                sweep = next(one for one in made.elements if isinstance(one, Sweep))
                assert not await sweep.reclaim("old")
                assert names(datapath) == {"old"}
        async with forwarder(datapath, MemoryJournal(kept)):
            await asyncio.sleep(LIFETIME + 1)
            assert names(datapath) == set()
        await datapath.apply(wire("half-made"))
        async with forwarder(datapath, MemoryJournal(kept)):
            assert names(datapath) == set()

    run(main())


def test_a_wire_that_is_in_the_way_and_nobodys_is_removed_for_who_needs_its_name():
    """Where it is could not be seen by a sweep; one with a connection is left alone."""

    async def main():
        datapath = FakeDatapath()
        async with forwarder(datapath, MemoryJournal()) as made:
            sweep = next(one for one in made.elements if isinstance(one, Sweep))
            await made.request(Call(), request("lives"))
            await datapath.apply(wire("half-made"))
            assert await sweep.reclaim("half-made")
            assert not await sweep.reclaim("lives")
            assert names(datapath) == {"lives"}

    run(main())


def test_what_cannot_be_looked_for_or_removed_now_is_met_again():
    """An error of the datapath ends neither the sweep nor the forwarder."""

    async def main():
        datapath = FakeDatapath()
        await datapath.apply(wire("gone"))
        datapath.fail("has", Unavailable("no"))
        datapath.fail("remove", Unavailable("no"))
        async with forwarder(datapath):
            await asyncio.sleep(2 * LIFETIME + 1)
            assert names(datapath) == {"gone"}
            await asyncio.sleep(LIFETIME)
            assert names(datapath) == set()

    run(main())


def test_a_request_for_a_wire_that_is_being_removed_waits_and_makes_it_anew():
    """Removing and asking again for one id are one after the other, never mixed."""

    async def main():
        datapath = FakeDatapath()
        await datapath.apply(wire("c-0"))

        async def slow(verb, wire_id):
            await asyncio.sleep(5 if verb == "remove" else 0)

        datapath.before = slow
        async with forwarder(datapath) as made:
            await asyncio.sleep(LIFETIME + 1)
            await made.request(Call(), request("c-0"))
            assert names(datapath) == {"c-0"}
            await asyncio.sleep(3 * LIFETIME)
            assert names(datapath) == {"c-0"}

    run(main())


def test_what_a_dead_forwarder_left_half_made_goes_at_the_start_whatever_the_journal_is():
    """It has no owner that could ask for it again; a driver that cannot look stops nothing."""

    class Left(FakeDatapath):
        found = 3

        async def tidy(self):
            if self.found is None:
                raise Unavailable("no namespace can be read")
            left, self.found = self.found, None
            return left

    async def main():
        datapath = Left()
        swept = DECLARED["nsm_sweep_wires"].values.get((), 0)
        async with forwarder(datapath, MemoryJournal()):
            assert DECLARED["nsm_sweep_wires"].values[()] == swept + 3
        await datapath.apply(wire("gone"))
        journal = MemoryJournal()
        journal.vouch()
        async with forwarder(datapath, journal):
            assert names(datapath) == set()

    run(main())
