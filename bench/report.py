"""What benchmarks say: rows of one table for all of them, and tables of details.

Time is in seconds here and printed with its unit. Wall time on a shared machine says little: the CPU time,
and above all its ratio to something that ran in the same minutes, is what travels from machine to machine.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common import Series, quantile, ratios, table

HEAD = ("benchmark", "way", "n", "p50", "p99", "per s", "CPU", "ratio", "10-90 %", "ratio to")


@dataclass(frozen=True, slots=True)
class Row:
    """One way to do one thing. Seconds per operation; ``ratio`` and ``spread`` are of CPU time.

    ``spread``: the ratio in the quietest and the loudest tenth of the rounds. What is not known is None.
    """

    benchmark: str
    way: str
    count: int
    p50: float | None = None
    p99: float | None = None
    per_second: float | None = None
    cpu: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    to: str = ""


@dataclass(slots=True)
class Details:
    """A table of its own, for what does not fit into rows."""

    title: str
    head: Sequence[str]
    rows: list[Sequence[str]]


@dataclass(slots=True)
class Report:
    """What one benchmark found. ``notes`` are sentences."""

    rows: list[Row] = field(default_factory=list)
    details: list[Details] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Take in what another benchmark found."""
        self.rows += other.rows
        self.details += other.details
        self.notes += other.notes


def row(
    benchmark: str,
    way: str,
    wall: Sequence[float],
    cpu_by_round: Sequence[float] = (),
    baseline_by_round: Sequence[float] = (),
    *,
    to: str = "",
    per_second: float | None = None,
) -> Row:
    """Return the row of a way: its wall times, its and the baseline's CPU time per operation by round."""
    ordered = sorted(wall)
    ratio = sorted(
        mine / theirs for mine, theirs in zip(cpu_by_round, baseline_by_round, strict=False) if theirs
    )
    return Row(
        benchmark,
        way,
        max(len(ordered), len(cpu_by_round)),
        quantile(ordered, 0.5) if ordered else None,
        quantile(ordered, 0.99) if ordered else None,
        per_second,
        statistics.median(cpu_by_round) if cpu_by_round else None,
        statistics.median(ratio) if ratio else None,
        (quantile(ratio, 0.1), quantile(ratio, 0.9)) if ratio else None,
        to if ratio else "",
    )


def row_of(benchmark: str, series: Series, baseline: Series) -> Row:
    """Return the row of a series beside its baseline."""
    ratio = sorted(ratios(series, baseline))
    cpu = statistics.median(series.cpu_by_round())
    wall = series.all_wall()
    return Row(
        benchmark,
        series.name,
        len(wall),
        quantile(wall, 0.5),
        quantile(wall, 0.99),
        None,
        cpu,
        statistics.median(ratio),
        (quantile(ratio, 0.1), quantile(ratio, 0.9)),
        baseline.name,
    )


def duration(seconds: float | None) -> str:
    """Return a time with its unit, three digits."""
    if seconds is None:
        return ""
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if abs(seconds) < limit:
            return f"{_digits(seconds * factor)} {unit}"
    return f"{_digits(seconds)} s"


def size(count: float) -> str:
    """Return a number of bytes, in kB."""
    return f"{_digits(count / 1000)} kB"


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cells(one: Row) -> tuple[str, ...]:
    return (
        one.benchmark,
        one.way,
        str(one.count),
        duration(one.p50),
        duration(one.p99),
        f"{one.per_second:.0f}" if one.per_second else "",
        duration(one.cpu),
        f"{one.ratio:.2f}" if one.ratio is not None else "",
        f"{one.spread[0]:.2f}-{one.spread[1]:.2f}" if one.spread else "",
        one.to,
    )


def show(report: Report, title: str) -> None:
    """Print the details, then the one table."""
    for part in report.details:
        table(part.title, part.head, part.rows)
    table(title, HEAD, [_cells(one) for one in report.rows], left=2)
    for note in report.notes:
        print(f"note: {note}")


def save(report: Report, path: Path) -> None:
    """Write the rows as JSON, seconds throughout."""
    path.write_text(json.dumps([asdict(one) for one in report.rows], indent=1))
