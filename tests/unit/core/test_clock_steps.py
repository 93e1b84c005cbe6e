"""Steps of the wall clock are told, and nothing else is."""

from __future__ import annotations

import asyncio

from nsmesh.core.clock_steps import LOOK, clock_steps
from nsmesh.core.virtual import SettableClock, run


def test_a_clock_that_is_set_is_noticed_and_one_that_is_kept_right_is_not():
    """Either way, at once, by how much; a second in an hour, and a second at once, is no step."""

    async def main():
        clock, seen = SettableClock(), []

        async def look():
            async for step in clock_steps(clock):
                seen.append(round(step))  # noqa: PERF401 - it never ends

        looking = asyncio.create_task(look())
        await asyncio.sleep(1)
        for _ in range(3600):
            clock.by += 1 / 3600
            await asyncio.sleep(1)
        clock.by += 1
        await asyncio.sleep(10)
        assert seen == []
        for step in (3600, -7200, 5):
            clock.by += step
            await asyncio.sleep(LOOK)
        assert seen == [3600, -7200, 5]
        looking.cancel()

    run(main())
