"""What happened in a mesh, one line a fact: kept for a while, and told to whoever listens."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nsmesh.core.clock import Clock
from nsmesh.standalone.news import News

KEPT = 1000
"""Events that are kept."""


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. ``at`` wall seconds; ``kind`` a word: ``mesh``, ``endpoint``, ``request``, ``wire`` ..."""

    number: int
    at: float
    kind: str
    text: str
    connection: str = ""
    failed: bool = False
    remedy: str = ""

    def row(self) -> dict[str, Any]:
        """Return it as ``nsm get events`` shows it."""
        when = datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds")
        return {
            "time": when.replace("+00:00", "Z"),
            "kind": self.kind,
            "text": self.text.strip(),
            "connection": self.connection,
            "failed": self.failed,
            "remedy": self.remedy,
        }


class Events:
    """The feed; ``news`` is told of each."""

    def __init__(self, clock: Clock, news: News) -> None:
        self._clock = clock
        self._news = news
        self.kept: deque[Event] = deque(maxlen=KEPT)
        self.last = 0
        """Number of the newest event."""

    def add(
        self, kind: str, text: str, *, connection: str = "", failed: bool = False, remedy: str = ""
    ) -> Event:
        """Tell a fact."""
        self.last += 1
        event = Event(self.last, self._clock.now(), kind, text, connection, failed, remedy)
        self.kept.append(event)
        self.tell()
        return event

    def tell(self) -> None:
        """Wake those who look at the mesh: something changed that is no event."""
        self._news.tell()

    def after(self, number: int) -> Iterator[Event]:
        """Yield the events that came after the one of that number, and are kept still."""
        return (event for event in list(self.kept) if event.number > number)
