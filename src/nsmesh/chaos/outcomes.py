"""What repetitions of a scenario showed, and whether a promise was kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nsmesh.chaos.scenarios import Promise, Scenario


@dataclass(slots=True)
class Outcome:
    """What repetitions of a scenario showed; times in seconds. ``given_up``: how often it never was well.

    ``errors``: what was said where the fault itself could not be done, or its end.
    """

    name: str
    scenario: Scenario
    situation: str
    sent: int = 0
    lost: int = 0
    gap: float = 0.0
    recovery: list[float] = field(default_factory=list)
    given_up: int = 0
    changed: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Return it as plain data, in the shape of ``docs/reference/json.md``."""
        return {
            "scenario": self.name,
            "who": list(self.scenario.who),
            "where": self.scenario.where,
            "what": self.scenario.what,
            "situation": self.situation,
            "repetitions": len(self.recovery) + self.given_up,
            "sent": self.sent,
            "lost": self.lost,
            "longest_gap_ms": round(self.gap * 1e3, 1),
            "recovery": "packets flow again" if self.promise.wire else "new Request served",
            "recovery_p50_ms": _milliseconds(_quantile(self.recovery, 0.5)),
            "recovery_p99_ms": _milliseconds(_quantile(self.recovery, 0.99)),
            "not_recovered": self.given_up,
            "changed": self.changed,
            "leaks": self.leaks,
            "errors": self.errors,
            "promised": self.promise.text,
            "kept": self.kept,
        }

    @property
    def promise(self) -> Promise:
        """What is promised."""
        return self.scenario.promise

    @property
    def kept(self) -> bool:
        """Say whether what is promised was seen.

        The time counts at the median, and for all but one in twenty repetitions; everything else every time.
        """
        lost = self.lost and not self.promise.wire
        if lost or self.changed or self.leaks or self.given_up or not self.recovery:
            return False
        middle, late = _quantile(self.recovery, 0.5), sum(one >= self.promise.limit for one in self.recovery)
        fast = middle is not None and middle < self.promise.limit
        return fast and (len(self.recovery) < 20 or late <= len(self.recovery) // 20)


def _quantile(values: Sequence[float], part: float) -> float | None:
    return sorted(values)[max(math.ceil(part * len(values)) - 1, 0)] if values else None


def _milliseconds(value: float | None) -> float | None:
    return None if value is None else round(value * 1e3, 1)
