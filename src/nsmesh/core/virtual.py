"""Virtual time: an event loop whose clock jumps to the next timer when nothing else is left to do.

For tests: hours pass in milliseconds, in the right order, and nobody sleeps.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""Wall time at which a virtual loop starts, seconds."""


class _JumpingSelector(selectors.SelectSelector):
    """Polls without waiting; where the loop would have slept, its clock is moved instead."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(0.05)  # only something outside the loop can wake it
        self.skipped += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time. Real file descriptors still work, but are polled, not waited for."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        # coarser than a float's step after years, or a timer that is due would never be seen as due
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return the virtual time that has passed since the loop was made, seconds."""
        return self._jumping.skipped


class VirtualClock:
    """The clock of a virtual loop; ``now`` starts at :data:`EPOCH`."""

    steps = False
    """Whether somebody may set it: its two times are one."""

    def __init__(self, epoch: float = EPOCH) -> None:
        self.epoch = epoch

    def now(self) -> float:
        """Return virtual wall time."""
        return self.epoch + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        """Return the virtual loop's time."""
        return asyncio.get_running_loop().time()


class SettableClock(VirtualClock):
    """One that somebody sets: its wall time is ``by`` seconds ahead of the loop's."""

    steps = True

    def __init__(self, epoch: float = EPOCH, *, by: float = 0.0) -> None:
        super().__init__(epoch)
        self.by = by

    def now(self) -> float:
        """Return virtual wall time, as it is set."""
        return super().now() + self.by


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on a fresh virtual loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
