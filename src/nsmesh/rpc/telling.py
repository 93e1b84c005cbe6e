"""What the log hears of peers that misbehave: all of it, unless somebody says the same a thousand times.

Every kind of trouble has a bucket of lines for each peer. What does not fit is counted, and told with the
next line that does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog

from nsmesh.core.call import Peer

log = structlog.get_logger()

LINES = 20
"""Lines of one kind about one peer that are written in ``WINDOW`` seconds."""
WINDOW = 5.0
PEERS = 1024
"""Buckets that are remembered; the oldest makes room."""


def name_of(peer: Peer) -> str:
    """Return what a peer cannot change by connecting anew: its SPIFFE ID, its user, or nothing."""
    return peer.spiffe_id or ("" if peer.uid is None else f"user {peer.uid}")


@dataclass(slots=True)
class _Bucket:
    until: float
    lines: int = 0
    unsaid: int = 0


class Telling:
    """Writes warnings, within bounds."""

    def __init__(self, lines: int = LINES, window: float = WINDOW) -> None:
        self._lines = lines
        self._window = window
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def warn(self, text: str, *, about: str = "", **values: object) -> None:
        """Log ``text`` as a warning, unless there was too much of the same; ``about`` names the peer."""
        key = (text, about)
        now = time.monotonic()
        bucket = self._buckets.get(key)
        if bucket is None or now >= bucket.until:
            unsaid = bucket.unsaid if bucket else 0
            self._buckets.pop(key, None)
            if len(self._buckets) >= PEERS:
                del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[key] = _Bucket(now + self._window)
            if unsaid:
                values["unsaid_before"] = unsaid
        bucket.lines += 1
        if bucket.lines <= self._lines:
            log.warning(text, **values)
        else:
            bucket.unsaid += 1


SHARED = Telling()
"""That of this process."""
