"""What can be wrong with a manifest: always a place, a sentence, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

MOST_ERRORS = 50
"""More mistakes of one file are not listed."""


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in a file; lines and columns count from 1."""

    line: int
    column: int


class Placed(Protocol):
    """Anything that stands somewhere in a file."""

    @property
    def mark(self) -> Mark:
        """Where it begins."""
        ...


class ManifestError(Exception):
    """One mistake: ``source`` (a file), ``line`` and ``column`` (0: all of it), ``what``, ``remedy``."""

    def __init__(self, source: str, line: int, column: int, what: str, remedy: str = "") -> None:
        super().__init__(source, line, column, what, remedy)
        self.source = source
        self.line = line
        self.column = column
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return f"{place}: {self.what}{' - ' + self.remedy if self.remedy else ''}"


class ManifestErrors(Exception):
    """All mistakes that were found, in the order of files and lines."""

    def __init__(self, errors: Sequence[ManifestError]) -> None:
        super().__init__(errors)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        lines = [str(error) for error in self.errors[:MOST_ERRORS]]
        if len(self.errors) > MOST_ERRORS:
            lines.append("and more")
        return "\n".join(lines)


class TooManyErrors(Exception):
    """A document has so many mistakes that reading on helps nobody."""


class Report:
    """Collects the mistakes of one document while it is read; raises TooManyErrors when it is full."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.errors: list[ManifestError] = []

    def add(self, place: Placed | Mark, what: str, remedy: str = "") -> None:
        """Note a mistake at a node or mark."""
        mark = place if isinstance(place, Mark) else place.mark
        if len(self.errors) > MOST_ERRORS:
            raise TooManyErrors
        self.errors.append(ManifestError(self.source, mark.line, mark.column, what, remedy))
