"""Scopes: what they started ends with them, and a closing that began is seen through."""

import asyncio
import gc
import time
import warnings

import pytest

from nsmesh.core.errors import Refused, Unavailable
from nsmesh.core.scope import Scope
from nsmesh.core.virtual import VirtualClock, run


def test_leaving_cancels_tasks_and_timers():
    """On leaving, no task and no timer of the scope is left, and none fires later."""

    async def main():
        fired = []
        async with Scope("s", VirtualClock()) as scope:
            task = scope.spawn(asyncio.sleep(100), name="sleeper")
            scope.after(50, lambda: fired.append(1))
            await asyncio.sleep(1)
            assert (scope.tasks, scope.timers) == (1, 1)
        assert task.cancelled()
        assert (scope.tasks, scope.timers) == (0, 0)
        await asyncio.sleep(100)
        assert fired == []

    run(main())


def test_a_failing_task_ends_alone():
    """One task's failure neither ends its neighbours nor the scope."""

    async def fail():
        raise Refused("no")

    async def main():
        async with Scope() as scope:
            other = scope.spawn(asyncio.sleep(1), name="other")
            await scope.spawn(fail(), name="fails")
            await other
            assert scope.running

    run(main())


def test_spawning_outside_is_an_error_and_leaks_no_coroutine():
    """A scope that is not entered starts nothing."""

    async def main():
        with pytest.raises(RuntimeError):
            Scope().spawn(asyncio.sleep(1), name="x")
        with pytest.raises(RuntimeError):
            Scope().after(1, lambda: None)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main())
        gc.collect()


def test_a_task_cancelled_before_its_first_step_is_closed():
    """Work that never came to run is closed, not forgotten."""

    async def main():
        async with Scope() as scope:
            scope.spawn(asyncio.sleep(1), name="never")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(main())
        gc.collect()


def test_timers_fire_in_order_and_can_be_taken_back():
    """A timer fires at its time; cancel may come any number of times; a failing one harms nobody."""

    async def main():
        seen = []
        async with Scope() as scope:
            loop = asyncio.get_running_loop()
            scope.after(2, lambda: seen.append(("b", loop.time())))
            scope.after(1, lambda: seen.append(("a", loop.time())))
            scope.after(1.5, lambda: 1 / 0)
            timer = scope.after(1, lambda: seen.append("never"))
            timer.cancel()
            timer.cancel()
            scope.at(-5, lambda: seen.append("soon"))
            await asyncio.sleep(3)
            assert seen == ["soon", ("a", 1.0), ("b", 2.0)]
            assert scope.timers == 0

    run(main())


def test_entering_twice_leaves_once():
    """A scope that is entered twice lives until it is left twice."""

    async def main():
        scope = Scope()
        async with scope:
            async with scope:
                task = scope.spawn(asyncio.sleep(10), name="t")
            assert scope.running
            assert not task.done()
        assert task.cancelled()

    run(main())


def test_finish_outlives_its_caller():
    """A caller that is cancelled three times still sees the work done, and is cancelled then."""

    async def main():
        done = []

        async def work():
            await asyncio.sleep(5)
            done.append(asyncio.get_running_loop().time())

        async with Scope() as scope:
            task = asyncio.ensure_future(scope.finish(work, name="w"))
            for _ in range(3):
                await asyncio.sleep(1)
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert done == [5.0]

    run(main())


def test_finish_hands_errors_to_the_caller():
    """What the work raises, its caller gets, inside and outside of a running scope."""

    async def work():
        raise Refused("no")

    async def main():
        scope = Scope()
        with pytest.raises(Refused):
            await scope.finish(work, name="w")
        async with scope:
            with pytest.raises(Refused):
                await scope.finish(work, name="w")

    run(main())


def test_finish_ends_with_the_scope():
    """When the scope ends before the work, the waiter is told and does not wait for ever."""

    async def main():
        scope = Scope("chain x")
        outcome = []

        async def wait():
            try:
                await scope.finish(lambda: asyncio.sleep(1000), name="w")
            except Unavailable as error:
                outcome.append(str(error))

        async with scope:
            waiter = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
        await waiter
        assert outcome == ["chain x stopped before w was done"]

    run(main())


def test_leaving_under_cancellation_still_leaves_nothing():
    """Who is cancelled while leaving leaves an empty scope all the same."""

    async def stubborn():
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(5)

    async def main():
        scope = Scope()

        async def hold():
            async with scope:
                scope.spawn(stubborn(), name="stubborn")
                await asyncio.sleep(1)

        task = asyncio.ensure_future(hold())
        await asyncio.sleep(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert scope.tasks == 0

    run(main())


def test_many_timers_of_one_moment_cost_no_more_each():
    """Twenty thousand timers due at the same time are set and taken back in well under two seconds."""

    async def main():
        async with Scope() as scope:
            timers = [scope.at(1000.0, lambda: None) for _ in range(20000)]
            assert scope.timers == 20000
            for timer in timers:
                timer.cancel()
            assert scope.timers == 0

    began = time.process_time()
    run(main())
    assert time.process_time() - began < 2
