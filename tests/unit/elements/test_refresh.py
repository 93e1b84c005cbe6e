"""Refresh: in time, one at a time, and again when it fails."""

import asyncio

import pytest

from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Refused, Unavailable
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.elements.refresh import Refresh
from nsmesh.model.messages import Connection, NetworkServiceRequest, Path, PathSegment
from nsmesh.model.times import timestamp


class Far(Element):
    def __init__(self, life=600.0):
        self.life = life
        self.times = []
        self.failing = 0
        self.delay = 0.0
        self.busy = 0

    async def request(self, call, request, next):
        loop = asyncio.get_running_loop()
        self.times.append(loop.time())
        assert self.busy == 0
        self.busy += 1
        await asyncio.sleep(self.delay)
        self.busy -= 1
        if self.failing:
            self.failing -= 1
            raise Unavailable("told to")
        if self.life is not None:
            for segment in request.connection.path.path_segments:
                segment.expires.CopyFrom(timestamp(EPOCH + loop.time() + self.life))
        return await next.request(call, request)


def ask(name="a"):
    path = Path(path_segments=[PathSegment(name=name, id=name), PathSegment(name="b", id="b")])
    return NetworkServiceRequest(connection=Connection(id=name, path=path))


def scenario(body, far=None, chance=lambda: 0.0):
    async def main():
        begin, there = BeginClient(), far or Far()
        handler = chain(begin, Refresh(chance), there, clock=VirtualClock())
        async with handler.running():
            await body(begin, there, handler)
            for connection in begin.connections:
                await handler.close(Call(), connection)
            await asyncio.sleep(1)
            assert (handler.scope.timers, handler.scope.tasks) == (0, 0)

    run(main())


def test_it_comes_at_a_fifth_of_the_shortest_life():
    """Two minutes at tokens of ten, as the field does."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        await asyncio.sleep(500)
        assert far.times == [0.0, *(pytest.approx(120.0 * n, abs=1e-3) for n in (1, 2, 3, 4))]

    scenario(body)


def test_chance_makes_it_earlier_and_never_later():
    """Ten thousand connections do not come at one instant, and none comes late."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        await asyncio.sleep(119)
        assert far.times == [0.0, pytest.approx(108.0, abs=1e-3)]

    scenario(body, chance=lambda: 1.0)


def test_a_failed_one_is_repeated_every_200_ms_also_beyond_the_end():
    """It never gives up while the connection is wanted."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        far.failing = 4000
        await asyncio.sleep(1000)
        assert len(far.times) == pytest.approx(4002, abs=20)
        gaps = {round(b - a, 3) for a, b in zip(far.times[1:3999], far.times[2:4000], strict=True)}
        assert gaps == {0.2}

    scenario(body)


def test_it_is_never_in_flight_twice():
    """A refresh that takes longer than its period is waited for."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        far.delay, far.life = 10.0, 5.0
        await asyncio.sleep(300)
        assert max(b - a for a, b in zip(far.times[2:], far.times[3:], strict=False)) < 12
        assert handler.scope.timers <= 1

    scenario(body)


def test_a_request_of_the_user_counts_as_one():
    """The period begins anew with each answer, whoever asked."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        await asyncio.sleep(100)
        await handler.request(Call(), ask())
        await asyncio.sleep(100)
        assert far.times == [0.0, 100.0]
        assert handler.scope.timers == 1

    scenario(body)


def test_a_failed_request_of_the_user_changes_nothing():
    """The old timer stays."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        await asyncio.sleep(100)
        far.failing = 1
        with pytest.raises(Unavailable):
            await handler.request(Call(), ask())
        await asyncio.sleep(25)
        assert far.times == [0.0, 100.0, pytest.approx(120.0, abs=1e-3)]

    scenario(body)


def test_tokens_that_have_ended_make_no_hot_loop():
    """At a life of nothing it comes five times a second, not at once for ever."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        await asyncio.sleep(10.1)
        assert len(far.times) == 51

    scenario(body, Far(life=-5.0))


def test_what_does_not_expire_is_not_refreshed():
    """Without any expiry there is nothing to hurry for."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask())
        assert handler.scope.timers == 0

    scenario(body, Far(life=None))


def test_a_first_request_that_fails_leaves_no_timer():
    """Nothing to refresh."""

    async def body(begin, far, handler):
        far.failing = 1
        first = ask()
        del first.connection.path.path_segments[1:]
        with pytest.raises((Refused, Unavailable)):
            await handler.request(Call(), first)
        assert handler.scope.timers == 0

    scenario(body)


def test_what_an_earlier_process_had_is_asked_for_until_it_is_granted():
    """A Request whose path goes on behind the first hop takes it up: it lives, also when that is refused."""

    async def body(begin, far, handler):
        far.failing = 3
        with pytest.raises(Unavailable):
            await handler.request(Call(), ask())
        assert [one.id for one in begin.connections] == ["a"]
        await asyncio.sleep(1)
        assert far.failing == 0
        assert len(far.times) == 4

    scenario(body)
