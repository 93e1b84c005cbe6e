"""How often connections come from one place: whoever dials without end is not let in for a moment.

Each handshake costs a server some milliseconds of its processor, and before it nothing is known of a peer but
where it comes from: a process of this host, or another host.
"""

from __future__ import annotations

ORIGINS = 4096
"""Places that are remembered; who came first makes room."""


class Arrivals:
    """Counts the connections of each place. ``most`` in ``window`` seconds are let in."""

    def __init__(self, most: int, window: float) -> None:
        self._most = most
        self._window = window
        self._seen: dict[object, list[float]] = {}  # the begin of a window, and how many came in it

    def __len__(self) -> int:
        """Return how many places are remembered."""
        return len(self._seen)

    def count(self, origin: object, now: float) -> bool:
        """Count one connection; say whether it may come in."""
        seen = self._seen.get(origin)
        if seen is None or now >= seen[0] + self._window:
            self._seen.pop(origin, None)
            if len(self._seen) >= ORIGINS:
                del self._seen[next(iter(self._seen))]
            seen = self._seen[origin] = [now, 0]
        seen[1] += 1
        return seen[1] <= self._most
