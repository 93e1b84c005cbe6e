"""Who could not be reached lately: a registry lists the dead for a while, and nobody need wait for them."""

from __future__ import annotations

from collections.abc import Sequence

from nsmesh.core.deciding import Candidate
from nsmesh.core.errors import MeshError, Status

PASSED_OVER = 10.0
"""Seconds for which somebody who could not be reached is asked behind all others."""
_SILENT = frozenset((Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED))


class Unreached:
    """Candidates that lately answered UNAVAILABLE or DEADLINE_EXCEEDED, or not at all.

    They are not left out: when no other can serve, they are asked again. Times are loop times in seconds.
    """

    def __init__(self) -> None:
        self._until: dict[Candidate, float] = {}

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._until)

    def in_order(self, candidates: Sequence[Candidate], now: float) -> list[Candidate]:
        """Return the candidates, in their order, with those behind that lately could not be reached."""
        return sorted(candidates, key=lambda candidate: self._until.get(candidate, now) > now)

    def note(self, candidate: Candidate, error: MeshError | None, now: float) -> None:
        """Remember how a try ended; one that was answered, if only by a no, makes up for those before."""
        if error is None or error.status not in _SILENT:
            self._until.pop(candidate, None)
            return
        for over in [known for known, until in self._until.items() if until <= now]:
            del self._until[over]
        self._until[candidate] = now + PASSED_OVER
