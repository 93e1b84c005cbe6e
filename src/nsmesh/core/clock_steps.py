"""Steps of the wall clock: somebody sets it, or the machine slept, and what was valid is not any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from nsmesh.core.clock import Clock

LOOK = 0.25
"""Seconds between two looks."""
LEAST = 2.0
"""Seconds that count as a step: less is what keeps a clock right, or a process that did not run."""


async def clock_steps(clock: Clock) -> AsyncIterator[float]:
    """Yield by how many seconds the wall clock has left the other, whenever it does, until cancelled.

    A sleep of the machine is such a step: the loop's time does not go on in it. A clock that says that it has
    no ``steps`` is not looked at.
    """
    if not getattr(clock, "steps", True):
        return
    before = clock.now() - clock.monotonic()
    while True:
        await asyncio.sleep(LOOK)
        drift = clock.now() - clock.monotonic()
        step, before = drift - before, drift
        if abs(step) >= LEAST:
            yield step
