"""Timeout: closes at the end of the caller's token less the call's budget, and at no other time."""

import asyncio

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Invalid, Refused
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.elements.timeout import Timeout
from nsmesh.journal.memory import MemoryJournal
from nsmesh.model.messages import Connection, NetworkServiceRequest, Path, PathSegment
from nsmesh.model.times import timestamp


class Far(Element):
    def __init__(self):
        self.delay = 0.0
        self.fail = False
        self.closed = []

    async def request(self, call, request, next):
        await asyncio.sleep(self.delay)
        if self.fail:
            raise Refused("told to")
        return await next.request(call, request)

    async def close(self, call, connection, next):
        self.closed.append(asyncio.get_running_loop().time())


def ask(life=600.0, index=1):
    segments = [PathSegment(name="a", id="a"), PathSegment(name="b", id="b")]
    if life is not None:
        now = EPOCH + asyncio.get_running_loop().time()
        segments[0].expires.CopyFrom(timestamp(now + life))
    return NetworkServiceRequest(
        connection=Connection(id="b", path=Path(index=index, path_segments=segments))
    )


def scenario(body):
    async def main():
        begin, far = Begin(), Far()
        handler = chain(begin, Timeout(), far, clock=VirtualClock())
        async with handler.running():
            await body(begin, far, handler)
            await asyncio.sleep(2000)
            assert handler.scope.timers == 0
            assert begin.connections == []

    run(main())


def test_it_closes_at_expiry_less_the_budget():
    """Token of 20 s, deadline of 5 s: closed after 15 s, as recorded of the field."""

    async def body(begin, far, handler):
        await handler.request(Call().within(5), ask(20))
        await asyncio.sleep(100)
        assert far.closed == [pytest.approx(15.0, abs=1e-3)]

    scenario(body)


@pytest.mark.parametrize("life", [5.0, 20.0, 30.0])
def test_a_deadline_as_long_as_the_token_does_not_close_at_once(life):
    """Two thirds of the token's life are left, which is more than any refresh waits."""

    async def body(begin, far, handler):
        for _ in range(10):
            await handler.request(Call().within(15), ask(life))
            await asyncio.sleep(life * 0.4 + 0.2)
        assert far.closed == []
        begun = asyncio.get_running_loop().time()
        await handler.request(Call().within(15), ask(life))
        await asyncio.sleep(100)
        assert far.closed == [pytest.approx(begun + life - min(15, life / 3), abs=1e-3)]

    scenario(body)


def test_without_a_deadline_it_closes_at_expiry():
    """No budget is taken off."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask(20))
        await asyncio.sleep(100)
        assert far.closed == [pytest.approx(20.0, abs=1e-3)]

    scenario(body)


def test_a_refresh_moves_it_and_a_failed_one_does_not():
    """Only a refresh that was granted gives more time."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask(20))
        await asyncio.sleep(10)
        await handler.request(Call(), ask(20))
        await asyncio.sleep(10)
        far.fail = True
        with pytest.raises(Refused):
            await handler.request(Call(), ask(20))
        await asyncio.sleep(100)
        assert far.closed == [pytest.approx(30.0, abs=1e-3)]

    scenario(body)


def test_a_refresh_under_way_at_the_moment_of_expiry_wins():
    """The automatic Close never ends what a refresh that came in time has renewed."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask(20))
        await asyncio.sleep(18)
        far.delay = 5
        await handler.request(Call(), ask(20))
        await asyncio.sleep(10)
        assert far.closed == []
        await asyncio.sleep(10)
        assert len(far.closed) == 1

    scenario(body)


def test_a_refresh_that_waits_behind_the_alarm_wins():
    """The alarm fires while another event holds the turn, and a refresh is served before its Close."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask(20))
        await asyncio.sleep(19)
        async with begin.turns.turn("b"):
            refresh = asyncio.ensure_future(handler.request(Call(), ask(20)))
            await asyncio.sleep(2)
        await refresh
        await asyncio.sleep(5)
        assert far.closed == []

    scenario(body)


def test_a_failing_refresh_at_the_end_lets_it_end():
    """When the time passed during a refresh that failed, the Close comes behind it."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask(20))
        await asyncio.sleep(18)
        far.delay, far.fail = 5, True
        with pytest.raises(Refused):
            await handler.request(Call(), ask(20))
        await asyncio.sleep(1)
        assert far.closed == [pytest.approx(23.0, abs=1e-3)]

    scenario(body)


@pytest.mark.parametrize(("life", "index"), [(None, 1), (600, 0)])
def test_a_missing_expiry_is_an_error_before_anything_is_done(life, index):
    """The text is the field's, without the connection's tokens; nothing further in was asked."""

    async def body(begin, far, handler):
        far.fail = True
        with pytest.raises(Invalid, match="expiration for the previous path segment cannot be nil"):
            await handler.request(Call(), ask(life, index))

    scenario(body)


def test_a_close_takes_the_alarm_back():
    """After a Close by hand nothing fires."""

    async def body(begin, far, handler):
        await handler.request(Call(), ask(20))
        await handler.close(Call(), Connection(id="b"))
        assert handler.scope.timers == 0
        await asyncio.sleep(100)
        assert len(far.closed) == 1

    scenario(body)


@pytest.mark.parametrize("step", [5.0, -5.0, 3600.0, -3600.0])
def test_a_clock_that_is_set_closes_nothing_and_delays_nothing(step):
    """Somebody sets the time of day: lives end when they would have; a refresh by the new clock counts."""

    class Set(VirtualClock):
        by = 0.0

        def now(self):
            return super().now() + self.by

    async def main():
        begin, far, clock = Begin(), Far(), Set()
        handler = chain(begin, Timeout(), far, clock=clock)
        async with handler.running():
            began = asyncio.get_running_loop().time()
            await handler.request(Call(), ask(600))
            await asyncio.sleep(100)
            clock.by = step
            await asyncio.sleep(100)
            assert far.closed == []
            await handler.request(Call(), ask(600 + step))  # its token was made by the new clock
            await asyncio.sleep(2000)
            assert far.closed == [pytest.approx(began + 800)]
            await handler.request(Call(), ask(600 + step))
            clock.by = 0.0
            await asyncio.sleep(2000)
            assert len(far.closed) == 2
            assert begin.connections == []

    run(main())


def cut_off(then, kept=None):
    """Close while the next hop is silent, die, and let ``then`` see what comes after us in ``Far``."""
    kept = {} if kept is None else kept

    class Silent(Far):
        async def close(self, call, connection, next):
            await asyncio.sleep(1000)

    async def main():
        journal = MemoryJournal(kept)
        dying = chain(Begin(journal), Timeout(), Silent(), clock=VirtualClock(), name="hop")
        async with dying.running():
            await dying.request(Call(), ask(600))
            closing = asyncio.ensure_future(dying.close(Call(), Connection(id="b")))
            await asyncio.sleep(0.1)
            journal.lose()
            closing.cancel()
        begin, far = Begin(MemoryJournal(kept)), Far()
        handler = chain(begin, Timeout(), far, clock=VirtualClock(), name="hop")
        async with handler.running():
            await then(begin, far, handler)

    run(main())
    return kept


def test_a_close_that_was_cut_off_is_done_by_the_next_process():
    """Nobody has to ask for it again, and it does not wait for the end of the token."""

    async def then(begin, far, handler):
        assert len(begin.connections) == 1
        await asyncio.sleep(3)
        assert len(far.closed) == 1
        assert begin.connections == []
        assert handler.scope.timers == 0

    assert not cut_off(then)


def test_who_asks_again_after_a_close_that_was_cut_off_has_it():
    """A Request that comes before the next process closes takes the Close back, also for the one after."""

    async def then(begin, far, handler):
        await handler.request(Call(), ask(600))
        await asyncio.sleep(30)
        assert far.closed == []
        assert len(begin.connections) == 1

    (record,) = cut_off(then).values()
    assert "closing" not in record.state
