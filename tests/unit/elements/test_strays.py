"""Strays: what a process without its journal had further on is closed there, for who asked for it alone."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import chain
from nsmesh.core.errors import NotFound, Unavailable
from nsmesh.core.metrics import DECLARED
from nsmesh.core.peering import TARGET
from nsmesh.core.unclosed import ENDS
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.elements.strays import LOOK, YOUNG, Strays
from nsmesh.elements.update_path import UpdatePath
from nsmesh.journal.memory import MemoryJournal
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    NetworkServiceRequest,
    Path,
    PathSegment,
)

WHO = Peer(spiffe_id="spiffe://t/caller")
OTHER = Peer(spiffe_id="spiffe://t/other")


def _asked():
    return Connection(id="c-0", path=Path(index=0, path_segments=[PathSegment(name="caller", id="c-0")]))


def _behind(ours, *, asker="c-0", name="us", subject=WHO.spiffe_id, key="f-0"):
    """Return what a next hop tells of one connection: the caller's segment, ours, its own."""
    segments = [
        PathSegment(name="caller", id=asker, token=f"{subject}>us"),
        PathSegment(name=name, id=ours),
        PathSegment(name="far", id=key),
    ]
    return Connection(id=key, path=Path(index=2, path_segments=segments))


async def _counted():
    return sum(one.value for one in await DECLARED["nsm_strays_closed"].samples())


class Tokens:
    """Tokens that can be read."""

    def subject(self, token):
        return token.partition(">")[0]


class Onward:
    """The client's half: what the monitors of next hops tell, by URL; silent ones say nothing."""

    def __init__(self):
        self.told = {}
        self.silent = set()
        self.asked = []

    async def monitor(self, call, selector):
        url = call.get(TARGET)
        (segment,) = selector.path_segments
        self.asked.append((url, segment.name, segment.id))
        if url in self.silent:
            await asyncio.sleep(3600)
        if url not in self.told:
            raise Unavailable(f"nobody listens at {url}")
        connections = {one.id: one for one in self.told[url]}
        yield ConnectionEvent(type=ConnectionEventType.INITIAL_STATE_TRANSFER, connections=connections)
        await asyncio.sleep(3600)


class Scene:
    """A server's half in the middle, and those behind it."""

    def __init__(self, journal=None):
        self.onward = Onward()
        self.urls = ["f"]
        self.owed = []
        self.discarded = []
        begin = Begin()
        self.strays = Strays("us", begin, self.onward, self.behind, self.owe, Tokens(), journal, self.discard)
        self.chain = chain(UpdatePath("us", begin=begin), self.strays, begin, end=self, clock=VirtualClock())

    async def request(self, call, request):
        return request.connection

    async def close(self, call, connection):
        """Close, at the end of the chain, what lives."""

    async def behind(self, call, connection):
        if isinstance(self.urls, Exception):
            raise self.urls
        return self.urls

    def owe(self, url, connection):
        index = connection.path.index
        assert connection.path.path_segments[index].id == connection.id
        self.owed.append((url, connection.id, index))

    async def discard(self, connection_id):
        self.discarded.append(connection_id)

    async def closed(self, peer=WHO):
        await self.chain.close(Call(peer=peer), _asked())


def _run(work, journal=None):
    async def scenario():
        scene = Scene(journal)
        async with scene.chain.running():
            await work(scene)

    run(scenario())


def test_a_close_of_what_is_forgotten_is_passed_on_to_where_it_is():
    async def work(scene):
        scene.urls = ["f", "g"]
        scene.onward.told = {"f": [], "g": [_behind("u-1")]}
        before = await _counted()
        await scene.closed()
        assert scene.owed == [("g", "u-1", 1)]
        assert scene.discarded == ["u-1"]
        assert sorted(scene.onward.asked) == [("f", "caller", "c-0"), ("g", "caller", "c-0")]
        assert await _counted() == before + 1

    _run(work)


@pytest.mark.parametrize(
    ("found", "who"),
    [
        (_behind("u-1"), OTHER),
        (_behind("u-1", subject=""), WHO),
        (_behind("u-1", asker="c-1"), WHO),
        (_behind("u-1", name="them"), WHO),
        (Connection(id="x", path=Path(path_segments=[PathSegment(name="caller", id="c-0")])), WHO),
    ],
    ids=["by somebody else", "without his token", "another of his", "not by us", "not asked of us"],
)
def test_what_is_another_s_is_left_alone(found, who):
    async def work(scene):
        scene.onward.told = {"f": [found]}
        await scene.closed(who)
        assert scene.onward.asked
        assert scene.owed == []
        assert scene.discarded == []

    _run(work)


def test_who_asks_anew_after_a_close_keeps_what_he_has_now():
    """The search goes on while we are young, and finds it too."""

    async def work(scene):
        scene.urls = []
        await scene.closed()
        answer = await scene.chain.request(Call(peer=WHO), NetworkServiceRequest(connection=_asked()))
        living = answer.path.path_segments[1].id
        scene.onward.told = {"f": [_behind("u-1"), _behind(living, key="f-1")]}
        scene.urls = ["f"]
        await asyncio.sleep(YOUNG)
        assert scene.owed == [("f", "u-1", 1)]

    _run(work)


@pytest.mark.parametrize("first", [[], Unavailable("the registry is away"), NotFound("no such endpoint")])
def test_who_comes_back_later_is_asked_then(first):
    async def work(scene):
        scene.urls = first
        await scene.closed()
        scene.onward.told = {"f": [_behind("u-1")]}
        await asyncio.sleep(YOUNG / 4)
        assert scene.onward.asked == []
        scene.urls = ["f"]
        await asyncio.sleep(YOUNG)
        assert scene.owed == [("f", "u-1", 1)]
        assert len(scene.onward.asked) == 1
        assert scene.chain.scope.tasks == 0

    _run(work)


def test_who_is_away_or_silent_holds_nobody_up():
    async def work(scene):
        scene.urls = ["away", "silent", "f"]
        scene.onward.silent = {"silent"}
        scene.onward.told = {"f": [_behind("u-1")]}
        began = asyncio.get_running_loop().time()
        await scene.closed()
        assert asyncio.get_running_loop().time() - began <= LOOK
        assert scene.owed == [("f", "u-1", 1)]

    _run(work)


def test_a_request_asks_nobody_and_a_close_not_after_the_life_of_a_token():
    async def work(scene):
        scene.onward.told = {"f": [_behind("u-1")]}
        await scene.chain.request(Call(peer=WHO), NetworkServiceRequest(connection=_asked()))
        await asyncio.sleep(ENDS)
        await scene.closed(OTHER)
        assert scene.onward.asked == []

    _run(work)


def test_a_process_with_its_journal_asks_nobody():
    async def work(scene):
        scene.onward.told = {"f": [_behind("u-1")]}
        await scene.closed()
        assert scene.onward.asked == []

    journal = MemoryJournal({("whole", ""): object()})
    _run(work, journal)
