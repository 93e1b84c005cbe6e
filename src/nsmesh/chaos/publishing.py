"""Writes what was measured into a document, between marks that stand in it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nsmesh.chaos import summary
from nsmesh.core.errors import Invalid

TABLE, SUMMARY, SOAK = "chaos", "chaos summary", "soak"
"""Parts of a document that are filled."""
_HEAD = (
    "scenario | situation | times | sent | lost | longest gap | p50 | p99 | changed, leaks | promised | kept"
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


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of ``nsm chaos run`` as a table of a document."""
    lines = [f"| {_HEAD} |", "|" + "---|" * (_HEAD.count("|") + 1)]
    for row in rows:
        lost = f"{row['lost']:,}"
        bad = len(row["changed"]) + len(row["leaks"])
        never = f"; {row['not_recovered']} never" if row["not_recovered"] else ""
        cells = (
            row["scenario"],
            row["situation"],
            row["repetitions"],
            f"{row['sent']:,}",
            lost,
            _time(row["longest_gap_ms"]),
            _time(row["recovery_p50_ms"]) + never,
            _time(row["recovery_p99_ms"]),
            bad,
            row["promised"],
            "yes" if row["kept"] else "**no**",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def merged(old: str, heading: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a table with ``rows`` in it, beside the other rows of ``old``, which stay.

    A row is known by its scenario and situation; one that is there already is replaced. They stand in the
    order of ``nsm chaos list``.
    ``heading`` says how ``rows`` were measured; where others stay, it names those that are meant.
    """
    fresh = {_key(line): line for line in table(rows).splitlines()[2:]}
    known = {_key(line): line for line in old.splitlines() if line.startswith("|")}
    kept = {key: line for key, line in list(known.items())[2:] if key not in fresh}
    if not kept:
        return f"{heading}\n\n{summary.in_order(table(rows))}"
    notes = [line for line in old.splitlines() if line and not line.startswith("|")]
    names = ", ".join(map(_named, fresh))
    headings = [_without(note, {_named(key) for key in fresh}) for note in notes]
    headings.append(f"{heading}{_THESE}{names}.")
    lines = {key: fresh.get(key, line) for key, line in known.items()} | fresh
    return "\n\n".join([*filter(None, headings), summary.in_order("\n".join(lines.values()))])


_THESE = " So were measured, later than the others: "


def _key(line: str) -> tuple[str, str]:
    """Return scenario and situation of a table's row."""
    cells = [cell.strip() for cell in line.split("|")]
    return cells[1], cells[2]


def _named(key: tuple[str, str]) -> str:
    return f"{key[0]} ({key[1]})"


def _without(note: str, names: set[str]) -> str:
    """Return a heading without those of its rows that were measured anew; empty where none are left."""
    heading, later, rows = note.partition(_THESE)
    if not later:
        return note
    left = [name for name in rows.removesuffix(".").split(", ") if name not in names]
    return f"{heading}{later}{', '.join(left)}." if left else ""


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
