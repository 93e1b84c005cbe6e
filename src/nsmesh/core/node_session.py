"""Whether another node is there, told from echoes of it: when to send the next, and when it counts as dead.

Pure. An echo goes out each ``interval``. When one is not back by the time of the next they follow five times
as fast, and a node from which none of at least :data:`LEAST` came back for three intervals is dead. What
counts is echoes without an answer and not time alone: a process that stood still itself has sent none.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

LEAST = 5
"""Echoes in a row that must have got no answer: chance takes one in a hundred on a poor link."""
HASTE = 5
"""How many times faster the echoes follow one another once one is missing."""
SILENT = 3
"""Intervals, or ways there and back where those are longer, without an answer after which it is dead."""
SLOW = 0.5
"""Seconds between two echoes to a node that has not answered."""
LONGEST = 1.0
"""Seconds: the longest way there and back that is believed."""
_KEPT = 64
"""Echoes that are under way at the most, where the longest way is believed."""


class Condition(Enum):
    """``NEW``: it has never answered, so its silence says nothing: a firewall may drop echoes."""

    NEW = "new"
    ALIVE = "alive"
    DEAD = "dead"


class Step(NamedTuple):
    """What to do now: send the echo of this number, look again in ``wait`` seconds; whether it just died."""

    sequence: int
    wait: float
    died: bool


class NodeSession:
    """One other node. ``interval`` in seconds; all times are of one clock that is never set back."""

    __slots__ = ("_first", "_interval", "_open", "_round", "_sequence", "condition")

    def __init__(self, interval: float) -> None:
        self.condition = Condition.NEW
        self._interval = interval
        self._sequence = 0
        self._open: dict[int, float] = {}
        self._round = 0.0
        self._first = LEAST

    @property
    def _late(self) -> float:
        """Seconds after which an echo is missed: long ways have more."""
        return max(self._interval, 2 * self._round)

    def heard(self, sequence: int, took: float) -> bool:
        """Take an answer, ``took`` seconds on its way; return whether the node is back from the dead."""
        if sequence not in self._open:
            return False  # too old, or nobody's
        self._round = min(max(took, 0.9 * self._round), LONGEST)
        sent = self._open[sequence]
        self._open = {number: when for number, when in self._open.items() if when > sent}
        back = self.condition is Condition.DEAD
        self.condition = Condition.ALIVE
        return back

    def step(self, now: float) -> Step:
        """Say what to do now, when all answers that have come are taken."""
        silent = now - min(self._open.values(), default=now)
        alive = self.condition is Condition.ALIVE
        died = alive and silent >= SILENT * self._late and len(self._open) >= LEAST
        if died:
            self.condition = Condition.DEAD
        self._sequence = self._sequence % 0xFFFF + 1
        self._open.pop(self._sequence, None)
        self._open[self._sequence] = now
        if len(self._open) > _KEPT:
            del self._open[next(iter(self._open))]
        return Step(self._sequence, self._wait(silent), died)

    def _wait(self, silent: float) -> float:
        if self.condition is Condition.ALIVE:
            missing = silent >= 0.9 * self._late
            return self._late / HASTE if missing else self._interval
        if self.condition is Condition.NEW and self._first:
            self._first -= 1
            return self._interval
        return SLOW
