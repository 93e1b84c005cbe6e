"""For all benchmarks: alternate measurement, and tables that show ratios beside figures.

Wall time on a shared machine says little, so every figure comes with CPU time, with a ratio to a baseline
that ran in the same minutes, and with the spread of that ratio over the rounds.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nsmesh.datapath import netns


@dataclass
class Series:
    """What one way to do something took: seconds of wall and CPU time for each operation, by round."""

    name: str
    wall: list[list[float]] = field(default_factory=list)
    cpu: list[list[float]] = field(default_factory=list)

    @contextlib.contextmanager
    def operation(self) -> Iterator[None]:
        """Measure one operation of the current round."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.wall[-1].append(time.perf_counter() - wall)
        self.cpu[-1].append(time.process_time() - cpu)

    def start_round(self) -> None:
        """Begin another round."""
        self.wall.append([])
        self.cpu.append([])

    def all_wall(self) -> list[float]:
        """Return the wall time of all operations, sorted."""
        return sorted(value for part in self.wall for value in part)

    def cpu_by_round(self) -> list[float]:
        """Return the median CPU time of an operation, for each round."""
        return [statistics.median(part) for part in self.cpu if part]


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value below which ``part`` (0 to 1) of the sorted ``values`` lie."""
    return values[min(int(len(values) * part), len(values) - 1)]


def ratios(series: Series, baseline: Series) -> list[float]:
    """Return CPU of ``series`` over CPU of ``baseline``, for each round."""
    return [a / b for a, b in zip(series.cpu_by_round(), baseline.cpu_by_round(), strict=True)]


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a table: the first ``left`` columns to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    print(f"\n{title}")
    for row in (head, *rows):
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def alternate(rounds: int, operations: int, ways: dict[str, Callable[[int], None]]) -> list[Series]:
    """Measure several ways in turn: in each round a block of operations by every way.

    Operations are numbered through. The first in a round is the last in the next, so that none always comes
    after the same.
    """
    series = {name: Series(name) for name in ways}
    for turn in range(rounds):
        names = list(ways) if turn % 2 else list(reversed(ways))
        for name in names:
            one, do = series[name], ways[name]
            one.start_round()
            for number in range(turn * operations, (turn + 1) * operations):
                with one.operation():
                    do(number)
    return list(series.values())


@contextlib.contextmanager
def spaces(count: int) -> Iterator[list[str]]:
    """Yield the paths of fresh namespaces, for a benchmark alone."""
    prefix = f"bench-{os.getpid()}-{uuid.uuid4().hex[:4]}"
    with netns.temporary(*(f"{prefix}-{number}" for number in range(count))) as paths:
        yield paths


def sweep() -> list[str]:
    """Delete the namespaces of benchmarks that were killed; return their names."""
    found = []
    for path in map(Path, netns.named()):
        part = path.name.split("-")
        if part[0] == "bench" and len(part) > 2 and part[1].isdigit() and not Path("/proc", part[1]).exists():
            netns.delete(path.name)
            found.append(path.name)
    return found
