"""What happened in a mesh, one line a fact: kept for a while, and told to whoever listens."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from nsmesh.core.clock import Clock

KEPT = 1000
BEHIND = 10_000
"""A listener that is further behind than this is dropped."""


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. ``at`` wall seconds; ``kind`` a word: ``mesh``, ``endpoint``, ``request``, ``wire`` ..."""

    at: float
    kind: str
    text: str
    connection: str = ""
    failed: bool = False
    remedy: str = ""

    def row(self) -> dict[str, Any]:
        """Return it as ``nsm get events`` shows it."""
        when = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        return {"time": when.replace("+00:00", "Z"), **{k: v for k, v in asdict(self).items() if k != "at"}}


class Events:
    """The feed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.kept: deque[Event] = deque(maxlen=KEPT)
        self._listeners: set[asyncio.Queue[Event]] = set()

    def add(
        self, kind: str, text: str, *, connection: str = "", failed: bool = False, remedy: str = ""
    ) -> Event:
        """Tell a fact."""
        event = Event(self._clock.now(), kind, text, connection, failed, remedy)
        self.kept.append(event)
        for queue in tuple(self._listeners):
            if queue.qsize() > BEHIND:
                self._listeners.discard(queue)
            else:
                queue.put_nowait(event)
        return event

    async def listen(self) -> AsyncIterator[Event]:
        """Yield what happens from now on, until cancelled."""
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)
