"""Writes what was measured into a document, between marks that stand in it."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nsmesh.chaos import summary, tables
from nsmesh.core.errors import Invalid

TABLE, SUMMARY, SOAK = "chaos", "chaos summary", "soak"
"""Parts of a document that are filled."""
_HEAD = (
    "scenario | situation | times | sent | lost | longest gap | p50 | p99 | changed, leaks | promised | kept"
    " | run"
)


def surroundings(load: float, at_once: int = 1) -> str:
    """Return when, on what, and beside which ``load`` (at the start) something was measured.

    ``at_once``: how many meshes there were at a time.
    """
    when = time.strftime("%Y-%m-%d", time.gmtime())
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    processors = f"{os.cpu_count()} processors" + (f" ({model})" if model else "")
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    meshes = f", {at_once} meshes at a time" if at_once > 1 else ""
    return f"{when}, {processors}, {system}; load average at the start {load:.1f}{meshes}."


def table(rows: Sequence[Mapping[str, Any]], run: int) -> str:
    """Return rows of ``nsm chaos run`` as a table of a document, ``run``: the number of their run."""
    return tables.table(_HEAD, (_cells(row, run) for row in rows))


def _cells(row: Mapping[str, Any], run: int) -> tuple[object, ...]:
    never = f"; {row['not_recovered']} never" if row["not_recovered"] else ""
    return (
        row["scenario"],
        row["situation"],
        row["repetitions"],
        f"{row['sent']:,}",
        f"{row['lost']:,}",
        _time(row["longest_gap_ms"]),
        _time(row["recovery_p50_ms"]) + never,
        _time(row["recovery_p99_ms"]),
        len(row["changed"]) + len(row["leaks"]),
        row["promised"],
        "yes" if row["kept"] else "**no**",
        run,
    )


def merged(old: str, heading: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a table with ``rows`` in it, beside the other rows of ``old``, which stay.

    A row is known by its scenario and situation; one that is there already is replaced. They stand in the
    order of ``nsm chaos list``. ``heading`` says how ``rows`` were measured; above the table each run that
    still has a row has one, by the number in its rows' last column.
    """
    runs = {int(found[1]): found[2] for found in _RUN.finditer(old)}
    number = max(runs, default=0) + 1
    head, rule, *fresh = table(rows, number).splitlines()
    lines = {_key(line): line for line in [*tables.lines(old), *fresh]}
    used = {int(tables.cells(line)[-1]) for line in lines.values()}
    notes = [f"Run {one}: {text}" for one, text in (runs | {number: heading}).items() if one in used]
    return "\n\n".join([*notes, summary.in_order("\n".join([head, rule, *lines.values()]))])


_RUN = re.compile(r"^Run (\d+): (.*)$", re.MULTILINE)


def _key(line: str) -> tuple[str, str]:
    """Return scenario and situation of a table's row."""
    scenario, situation, *_ = tables.cells(line)
    return scenario, situation


def _time(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def soaked(plain: Mapping[str, Any]) -> str:
    """Return what a soak saw as a part of a document."""
    faults = (
        ", ".join(f"{count} times {name}" for name, count in sorted(plain["faults"].items())) or "no faults"
    )
    what = (
        f"{plain['seconds'] / 60:.3g} minutes, seed {plain['seed']}: {plain['requests']:,} Requests, "
        f"{plain['closes']:,} Closes, {plain['refused']:,} of them asked again; {faults}. "
        f"Never served: {'; '.join(plain['unserved']) or 'none'}. "
        f"Silent wires: {len(plain['silent'])}. Not level: {'; '.join(plain['unlevel']) or 'nothing'}. "
        f"Leaks: {len(plain['leaks'])}. Left behind: {len(plain['left'])}."
    )
    lines = [
        what,
        "",
        "| process | PSS, KiB | descriptors | threads | slope, KiB a minute |",
        "|---|---|---|---|---|",
    ]
    for row in plain["processes"]:
        pairs = (" → ".join(map(str, row[key])) for key in ("memory_kib", "descriptors", "threads"))
        slope = row["slope_kib_per_minute"]
        lines.append(f"| {row['process']} | {' | '.join(pairs)} | {'-' if slope is None else slope} |")
    return "\n".join(lines)


def update(file: Path, heading: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put ``rows`` into the table of a document, see :func:`merged`; raises Invalid where it has no place.

    Its summary is written anew, where there is a place for one.
    """
    _, old, _ = _parts(file, TABLE)
    text = merged(old, heading, rows)
    write(file, TABLE, text)
    if _begin(SUMMARY) in file.read_text():
        write(file, SUMMARY, summary.table(text))


def write(file: Path, part: str, text: str) -> None:
    """Put ``text`` between the marks of a part; raises Invalid where there is none."""
    before, _, after = _parts(file, part)
    file.write_text(f"{before}\n{text}\n{after}")


def _begin(part: str) -> str:
    return f"<!-- {part}: measured -->"


def _parts(file: Path, part: str) -> tuple[str, str, str]:
    """Return what is before a part with its mark, the part, and what is after it with its mark."""
    begin, end = _begin(part), f"<!-- {part}: end -->"
    try:
        old = file.read_text()
    except OSError as error:
        raise Invalid(
            f"{file} cannot be read: {error.strerror}", remedy="name a document that is there"
        ) from None
    before, found, rest = old.partition(begin)
    inside, closed, after = rest.partition(end)
    if not found or not closed:
        raise Invalid(
            f"{file} has no place for what was measured",
            remedy=f"put two lines into it: {begin} and {end}",
        )
    return before + begin, inside, end + after
