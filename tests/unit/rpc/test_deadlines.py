"""Deadlines of the calls of one connection: each is kept, by one timer at a time."""

import asyncio

from nsmesh.core.virtual import run
from nsmesh.rpc.deadlines import Deadlines


def timers():
    """Return how many timers of the loop are pending."""
    return sum(not handle.cancelled() for handle in asyncio.get_running_loop()._scheduled)


def test_each_call_ends_at_its_own_deadline():
    """Calls end in the order of their deadlines, each at its own; a dropped one does not."""

    async def main():
        loop, said = asyncio.get_running_loop(), []
        deadlines = Deadlines(loop)
        began = loop.time()
        for stream, after in ((1, 5.0), (3, 1.0), (5, 3.0), (7, 2.0)):
            deadlines.add(stream, began + after, lambda stream=stream: said.append((stream, loop.time())))
        deadlines.drop(7)
        deadlines.drop(9)
        await asyncio.sleep(10)
        assert [stream for stream, _ in said] == [3, 5, 1]
        assert [round(when - began, 3) for _, when in said] == [1.0, 3.0, 5.0]
        assert len(deadlines) == 0

    run(main())


def test_one_timer_serves_all_calls():
    """Thousands of calls that come and go, each later than the one before, need one timer; clear stops it."""

    async def main():
        loop, said = asyncio.get_running_loop(), []
        deadlines = Deadlines(loop)
        before = timers()
        for stream in range(1, 2001, 2):
            deadlines.add(stream, loop.time() + 15, lambda: said.append("late"))
            assert timers() == before + 1
            deadlines.drop(stream)
            await asyncio.sleep(0.001)
        deadlines.clear()
        assert timers() == before
        await asyncio.sleep(60)
        assert not said

    run(main())


def test_what_one_end_does_to_others_is_taken_into_account():
    """A call that ends another one, or begins one, when its deadline has come, disturbs nothing."""

    async def main():
        loop, said = asyncio.get_running_loop(), []
        deadlines = Deadlines(loop)
        now = loop.time()

        def first():
            said.append("first")
            deadlines.drop(3)
            deadlines.add(5, now + 2, lambda: said.append("new"))

        deadlines.add(1, now + 1, first)
        deadlines.add(3, now + 1, lambda: said.append("dropped"))
        await asyncio.sleep(5)
        assert said == ["first", "new"]

    run(main())
