"""Who could not be reached lately: a registry lists the dead for a while, and nobody need wait for them."""

from __future__ import annotations

from nsmesh.core.deciding import Candidate
from nsmesh.core.errors import MeshError, Status, Unreachable

PASSED_OVER = 10.0
"""Seconds for which somebody who could not be reached is asked behind all others."""
_SILENT = frozenset((Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED))


class Unreached:
    """Candidates that lately answered UNAVAILABLE or DEADLINE_EXCEEDED, or not at all.

    They are not left out: when no other can serve, they are asked again. Where nobody answers a dial, all who
    are reached by that URL are meant. Times are loop times in seconds.
    """

    def __init__(self) -> None:
        self._until: dict[Candidate | str, float] = {}

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._until)

    def last(self, candidate: Candidate, now: float) -> bool:
        """Return whether somebody is asked behind all others."""
        return max(self._until.get(candidate, now), self._until.get(candidate.url, now)) > now

    def note(self, candidate: Candidate, error: MeshError | None, now: float) -> None:
        """Remember how a try ended; one that was answered, if only by a no, makes up for those before."""
        if error is None or error.status not in _SILENT:
            self._until.pop(candidate, None)
            self._until.pop(candidate.url, None)
            return
        for over in [known for known, until in self._until.items() if until <= now]:
            del self._until[over]
        self._until[candidate] = now + PASSED_OVER
        if isinstance(error, Unreachable) and error.target == candidate.url:
            self._until[candidate.url] = now + PASSED_OVER
