"""The deadlines of the calls of one connection: one timer for all of them.

Nearly every call ends long before its deadline, and the deadline of the next call is later: the timer that
runs stays as it is, and a call costs an entry in a dict.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadlines:
    """Calls by stream, each with its deadline (loop time) and what to do when that has come."""

    __slots__ = ("_at", "_loop", "_timer", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, tuple[float, Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def __len__(self) -> int:
        """Return how many calls have a deadline."""
        return len(self._waiting)

    def add(self, stream: int, deadline: float, late: Callable[[], None]) -> None:
        """Call ``late`` at ``deadline``, unless the call is dropped before."""
        self._waiting[stream] = (deadline, late)
        if self._timer is None or deadline < self._at:
            self._arm(deadline)

    def drop(self, stream: int) -> None:
        """Forget a call that has ended; one that has no deadline is forgotten already."""
        self._waiting.pop(stream, None)

    def clear(self) -> None:
        """Forget all."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = self._loop.call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = max(self._at, self._loop.time())
        for stream, (deadline, late) in list(self._waiting.items()):
            if deadline <= now and self._waiting.pop(stream, None) is not None:
                late()
        if self._waiting and self._timer is None:
            self._arm(min(deadline for deadline, _ in self._waiting.values()))
