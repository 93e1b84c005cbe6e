"""Dial after a restart: a next hop that was known by a descriptor alone is found anew, no stranger is met."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import chain
from nsmesh.core.errors import Unavailable
from nsmesh.core.peering import TARGET, Dialled
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.elements.dial import Dial
from nsmesh.journal.memory import MemoryJournal
from nsmesh.model.fileurl import GONE
from nsmesh.model.messages import Connection, NetworkServiceRequest, Path, PathSegment

OLD, NEW = "unix:///proc/1/fd/16", "unix:///proc/1/fd/14"
"""Sockets that a manager in a container holds: its number is 1 before and after a restart."""


class Far:
    """A next hop, and what it was asked."""

    def __init__(self):
        self.peer = Peer(spiffe_id="spiffe://mesh/forwarder")
        self.seen = []

    async def request(self, call, request):
        self.seen.append("request")
        return request.connection

    async def close(self, call, connection):
        self.seen.append("close")


class Node:
    """Who listens at which URL; the journal of a manager, and one process of it after the other."""

    def __init__(self):
        self.far = {OLD: Far(), NEW: Far()}
        self.kept = {}

    async def get(self, url):
        if url not in self.far:
            raise Unavailable(f"nobody listens at {url}")
        return self.far[url]

    @asynccontextmanager
    async def process(self):
        journal = MemoryJournal(self.kept)
        dial = Dial(self, journal=journal)
        made = chain(Begin(journal), dial, end=Dialled(), name="test", clock=VirtualClock())
        async with made.running():
            yield made
            journal.lose()  # killed: nothing is closed


def to(url):
    return Call(values={TARGET: url}).within(15)


def ask():
    path = Path(index=0, path_segments=[PathSegment(name="c", id="c-0")])
    return NetworkServiceRequest(connection=Connection(id="c-0", path=path))


def test_what_an_earlier_process_held_is_left_alone():
    """The descriptor's number belongs to another socket now: no Close goes there, the Request goes on."""

    async def main():
        node = Node()
        async with node.process() as made:
            answer = await made.request(to(OLD), ask())
        async with node.process() as made:
            await made.request(to(NEW), NetworkServiceRequest(connection=answer))
            await asyncio.sleep(30)
        assert node.far[OLD].seen == ["request"]
        assert node.far[NEW].seen == ["request"]

    run(main())


def test_a_close_goes_where_the_next_hop_is_now():
    """Who decides names it, and it is told; without a name nobody is met by chance."""

    async def main():
        node = Node()
        async with node.process() as made:
            answer = await made.request(to(OLD), ask())
        async with node.process() as made:
            await made.close(to(NEW), answer)
            await asyncio.sleep(30)
        assert node.far[NEW].seen == ["close"]
        node.kept.clear()
        async with node.process() as made:
            answer = await made.request(to(OLD), ask())
        async with node.process() as made:
            await made.close(Call().within(15), answer)
            await asyncio.sleep(30)
        assert node.far[OLD].seen == ["request", "request"]

    run(main())


def test_a_close_that_is_owed_never_reaches_a_stranger():
    """Nobody listens at the descriptor any more; then the next process holds somebody else by its number."""

    async def main():
        node = Node()
        async with node.process() as made:
            answer = await made.request(to(OLD), ask())
            del node.far[OLD]
            await made.close(to(OLD), answer)
            assert made.elements[1].unclosed.owed == [(GONE, "c-0")]
        node.far[OLD] = Far()
        async with node.process():
            await asyncio.sleep(30)
        assert node.far[OLD].seen == []

    run(main())


def test_somebody_at_a_path_of_his_own_is_closed_there_as_ever():
    """A path in a folder, or an address, means the same after a restart."""

    async def main():
        node = Node()
        node.far["unix:///run/f.sock"] = Far()
        async with node.process() as made:
            answer = await made.request(to("unix:///run/f.sock"), ask())
        async with node.process() as made:
            await made.request(to(NEW), NetworkServiceRequest(connection=answer))
        assert node.far["unix:///run/f.sock"].seen == ["request", "close"]

    run(main())
