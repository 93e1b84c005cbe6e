"""What a check is: a name, what is expected, and a function that says what was seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nsmesh.conformance.world import World

Check = Callable[["World"], Awaitable[str]]
"""Looks, and returns what it saw in a few words. Raises Deviation, Skipped, or a MeshError."""


class Deviation(Exception):
    """Something else was seen than what the contract says."""


class Skipped(Exception):
    """The case cannot be run here; its text says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """One check. ``name`` is ``group/what``; ``section`` is that of the wire contract."""

    name: str
    section: str
    expected: str
    check: Check


@dataclass(frozen=True, slots=True)
class Result:
    """How a case went: ``verdict`` is pass, fail or skip; ``took`` in seconds."""

    case: Case
    verdict: str
    seen: str
    took: float

    def row(self) -> dict[str, object]:
        """Return it as plain data."""
        return {
            "case": self.case.name,
            "section": self.case.section,
            "expected": self.case.expected,
            "seen": self.seen,
            "result": self.verdict,
            "seconds": round(self.took, 3),
        }


class Group:
    """Collects the cases of one module, in their order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cases: list[Case] = []

    def case(self, name: str, section: str, expected: str) -> Callable[[Check], Check]:
        """Return a decorator that adds a check."""

        def add(check: Check) -> Check:
            self.cases.append(Case(f"{self.name}/{name}", section, expected, check))
            return check

        return add


def expect(holds: object, seen: str) -> str:
    """Return ``seen`` where ``holds``; raises Deviation otherwise."""
    if not holds:
        raise Deviation(seen)
    return seen
