"""Room for so many at once: less of it when they come to no end in time, more again when they do."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """At most ``most`` at a time, and at least one. Enter it with ``async with``.

    Whoever asks many at once may ask more than can be answered in time; then none is answered at all. Room is
    halved once for all that were inside, and grows by one when as many as there is room for have ended well.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._size = float(most)
        self.inside = 0
        self._shrunk = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def size(self) -> int:
        """How many there is room for."""
        return int(self._size)

    async def __aenter__(self) -> int:
        """Wait for a place; return what :meth:`late` wants to know."""
        while self.inside >= self.size:
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._wake()
                raise
            finally:
                if place in self._waiting:
                    self._waiting.remove(place)
        self.inside += 1
        return self._shrunk

    async def __aexit__(self, *_: object) -> None:
        self.inside -= 1
        self._wake()

    def in_time(self) -> None:
        """Hear of one that has ended well."""
        self._size = min(self.most, self._size + 1 / self._size)
        self._wake()

    def late(self, entered: int) -> None:
        """Hear of one that came to no end in time; ``entered``: what it got when it came in."""
        if entered == self._shrunk:
            self._size = max(1.0, self._size / 2)
            self._shrunk += 1

    def _wake(self) -> None:
        free = self.size - self.inside
        while free > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                free -= 1
