"""Turns: one at a time for each name, in the order of arrival."""

import asyncio

from nsmesh.core.turns import Turns
from nsmesh.core.virtual import run


def test_turns_are_taken_in_order_and_forgotten():
    """Who came first is served first, also when one in between gives up; no lock is kept."""

    async def main():
        turns, order = Turns(), []

        async def take(number, name):
            async with turns.turn(name):
                order.append(number)
                await asyncio.sleep(1)

        tasks = [asyncio.ensure_future(take(number, "a")) for number in range(4)]
        other = asyncio.ensure_future(take("other", "b"))
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        late = asyncio.ensure_future(take("late", "a"))
        await asyncio.gather(*tasks, other, late, return_exceptions=True)
        assert order == [0, "other", 2, 3, "late"]
        assert len(turns) == 0

    run(main())


def test_a_turn_that_comes_as_its_owner_gives_up_goes_to_the_next():
    """Who is cancelled in the very step in which its turn came does not keep it."""

    async def main():
        turns, order = Turns(), []

        async def take(number):
            async with turns.turn("a"):
                order.append(number)

        async with turns.turn("a"):
            tasks = [asyncio.ensure_future(take(number)) for number in range(3)]
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [1, 2]
        assert len(turns) == 0

    run(main())


def test_who_gives_up_just_before_the_turn_is_passed_on_is_passed_over():
    """A cancelled wait that has not come to its end yet is no turn, and ends as a cancellation."""

    async def main():
        turns, order = Turns(), []

        async def take(number):
            async with turns.turn("a"):
                order.append(number)

        async with turns.turn("a"):
            tasks = [asyncio.ensure_future(take(number)) for number in range(3)]
            await asyncio.sleep(0)
            tasks[0].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert order == [1, 2]
        assert len(turns) == 0

    run(main())
