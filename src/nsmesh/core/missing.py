"""An endpoint that nobody finds: it may come back, and then it is given up."""

from __future__ import annotations

from nsmesh.core.errors import MeshError, Status

MISSING = 10.0
"""Seconds for which an endpoint that nobody finds may come back, as after a restart of its manager."""
MISSING_ALIVE = 60.0
"""The same where packets come back from it: a manager that was stopped for half a minute has lost it by then.

It registers again within a minute, if it is to be there; nothing is lost by waiting for it.
"""

_ABSENT = frozenset((Status.NOT_FOUND, Status.UNKNOWN))


class Missing:
    """For how long nobody has found the endpoint of one connection. Times are loop times in seconds."""

    __slots__ = ("_limit", "_since")

    def __init__(self, limit: float = MISSING) -> None:
        self._limit = limit
        self._since: float | None = None

    def note(self, endpoint: str, error: MeshError, now: float) -> None:
        """Hear why a Request failed; only an answer that this very endpoint is not there counts."""
        if not _is_missing(endpoint, error):
            self._since = None
        elif self._since is None:
            self._since = now

    def found(self) -> None:
        """Hear that it is there."""
        self._since = None

    def too_long(self, now: float) -> bool:
        """Return whether it is to be given up, whatever its packets do."""
        return self._since is not None and now - self._since >= self._limit


def _is_missing(endpoint: str, error: MeshError) -> bool:
    """Whether the answer is that this very endpoint is not there; some of the field say so by text alone."""
    return endpoint in error.what and "not found" in error.what and error.status in _ABSENT
