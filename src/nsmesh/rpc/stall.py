"""The patience with a peer that does not read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Stall:
    """Calls ``ended`` when nothing has moved for ``limit`` seconds; one timer, however often it moves."""

    __slots__ = ("_ended", "_limit", "_loop", "_moved", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float, ended: Callable[[], None]) -> None:
        self._loop = loop
        self._limit = limit
        self._ended = ended
        self._moved = loop.time()
        self._timer = loop.call_later(limit, self._due)

    def moved(self) -> None:
        """Hear that something has moved: the time runs anew."""
        self._moved = self._loop.time()

    def stop(self) -> None:
        """Wait no longer."""
        self._timer.cancel()

    def _due(self) -> None:
        due = self._moved + self._limit
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._due)
        else:
            self._ended()
