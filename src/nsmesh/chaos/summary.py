"""What rows of a table of ``nsm chaos run`` come to: one line for each kind of fault, near and far."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from nsmesh.chaos import tables
from nsmesh.chaos.scenarios import NAMES, SITUATIONS

_HEAD = "fault | where | scenarios, situations | times | lost | slowest p50 | slowest p99 | kept"
_ALONE = {("client",), ("disk",), ("mesh",), ("node",)}
"""Who is no process, or all of them at once, so that there is no number to tell."""
_MANY: dict[tuple[str, ...], str] = {("endpoints",): "all", ("switch",): "two"}
"""How many they are whom one word names."""


class Row(NamedTuple):
    """A row of the table, as it stands there; times in milliseconds, None where none was seen."""

    scenario: str
    situation: str
    times: int
    lost: int
    p50: float | None
    p99: float | None
    kept: bool


def rows(text: str) -> list[Row]:
    """Return the rows of a table, of scenarios that are known."""
    return [row for row in map(_row, tables.lines(text)) if row.scenario in NAMES]


def in_order(text: str) -> str:
    """Return a table with its rows in the order of the list of scenarios; others come last."""
    head, rule, *lines = text.splitlines()
    return "\n".join([head, rule, *sorted(lines, key=_place)])


def table(text: str) -> str:
    """Return the summary of a table, as a table."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows(text):
        groups.setdefault(_kind(row.scenario), []).append(row)
    return tables.table(_HEAD, ((*kind, *_cells(some)) for kind, some in groups.items()))


def _cells(some: list[Row]) -> tuple[str, ...]:
    kept = sum(row.kept for row in some)
    return (
        f"{len({row.scenario for row in some})}, {len({row.situation for row in some})}",
        f"{sum(row.times for row in some):,}",
        f"{sum(row.lost for row in some):,}",
        _slowest(row.p50 for row in some),
        _slowest(row.p99 for row in some),
        "all" if kept == len(some) else f"{kept} of {len(some)}",
    )


def _kind(name: str) -> tuple[str, str]:
    """Return what is done, to how many, and where."""
    one = NAMES[name]
    if one.who in _ALONE:
        return one.what, one.where
    many = _MANY.get(one.who) or {1: "one", 2: "two"}.get(len(one.who), "all")
    return f"{one.what}, {many}", one.where


def _place(line: str) -> tuple[int, int]:
    """Return where a line belongs: by the list of scenarios, then by situation."""
    name, situation = tables.cells(line)[:2]
    if name not in NAMES or situation not in SITUATIONS:
        return len(NAMES), 0
    return [*NAMES].index(name), SITUATIONS.index(situation)


def _row(line: str) -> Row:
    name, situation, times, _, lost, _, p50, p99, _, _, kept, _ = tables.cells(line)
    count = int(lost.replace(",", ""))
    return Row(name, situation, int(times), count, _milliseconds(p50), _milliseconds(p99), kept == "yes")


def _milliseconds(cell: str) -> float | None:
    value = cell.partition(" ms")[0]
    return None if value.startswith("-") else float(value)


def _slowest(values: Iterable[float | None]) -> str:
    slowest = max((value for value in values if value is not None), default=None)
    return "-" if slowest is None else f"{slowest:.0f} ms"
