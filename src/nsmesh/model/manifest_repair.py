"""Manifests that lost their YAML on the way through print: a proposal of how they were meant.

Listings in books and magazines lose blanks behind colons, colons behind words, and the dashes of lists. Such
a text is never read by guessing. It is refused, and the error shows the lines as they should be, once these
are proven to be a valid manifest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nsmesh.model.manifest_errors import ManifestError
from nsmesh.model.manifest_text import Chunk

_LARGEST = 1 << 16
_MOST_WORK = 100_000
"""Characters read while unneeded changes are looked for."""
_TIGHT = re.compile(r"(?P<head>[ \t]*(?:- +)*[A-Za-z_][\w./-]*:)(?P<value>(?!//)[^\s:].*)")
_WORDS = (
    "metadata spec matches match source_selector sourceSelector routes route destination destination_selector"
    " destinationSelector labels annotations ends options env services"
)
_BARE = re.compile(rf"(?P<head>[ \t]*(?:- +)*(?:{'|'.join(_WORDS.split())}))[ \t]*")
_LISTS = (("matches", "match"), ("route", "destination"))
"""Lists of the 2019 form, and the word that each of their items begins with."""


@dataclass(frozen=True, slots=True)
class Change:
    """One corrected line: its number in the chunk from 0, old and new text, the column, what is wrong."""

    number: int
    old: str
    new: str
    column: int
    why: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What reading a text gave: its mistakes, and whether it was YAML at all."""

    errors: Sequence[ManifestError]
    is_yaml: bool


Check = Callable[[Chunk], Checked]


def propose(chunk: Chunk, source: str, before: Checked, check: Check) -> list[ManifestError] | None:
    """Return better errors for a broken document, or None when no small correction makes it valid.

    ``before`` is what reading it gave, ``check`` reads another text for the same place.
    """
    if len(chunk.text) > _LARGEST:
        return None
    lines = chunk.text.splitlines()
    tight = _tight(lines)
    changes = _changes(lines, tight)
    if not changes:
        return None
    after = check(_apply(chunk, lines, changes))
    if not after.errors:
        changes = _fewest(chunk, lines, tight, check)
    elif before.is_yaml or not after.is_yaml:
        return None
    return [_error(chunk, source, changes), *after.errors]


def _tight(lines: list[str]) -> list[Change]:
    """Find lines without the blank behind a colon, without a colon, or with tabs in front."""
    changes = []
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        new = line[:indent].replace("\t", "  ") + line[indent:]
        column, why = line.find("\t") + 1, "a tab in the indentation"
        found = _TIGHT.fullmatch(new)
        if found:
            new = f"{found['head']} {found['value']}"
            column, why = len(found["head"]) + 1, "no blank behind a colon"
        bare = _BARE.fullmatch(new)
        if bare:
            new = f"{bare['head']}:"
            column, why = len(new), f"{bare['head'].strip('- ')!r} without its colon"
        if new != line:
            changes.append(Change(number, line, new, column, why))
    return changes


def _changes(lines: list[str], tight: Sequence[Change]) -> list[Change]:
    """Add to the changes within lines those that put dashes in front of items."""
    fixed = list(lines)
    why = {}
    for change in tight:
        fixed[change.number] = change.new
        why[change.number] = (change.column, change.why)
    for word, item in _LISTS:
        for number, line in enumerate(fixed):
            if re.fullmatch(rf"\s*(?:- +)*{word}s?:\s*", line):
                for added in _add_dashes(fixed, number, item):
                    why.setdefault(
                        added, (len(fixed[added]) - len(fixed[added].lstrip()) + 1, _dash_reason(item))
                    )
                    if fixed[added].lstrip().startswith(f"- {item}:"):
                        why[added] = (why[added][0], _dash_reason(item))
    return [
        Change(number, old, fixed[number], *why[number])
        for number, old in enumerate(lines)
        if fixed[number] != old
    ]


def _dash_reason(item: str) -> str:
    return f"{item!r} without its dash"


def _add_dashes(lines: list[str], start: int, item: str) -> list[int]:
    """Give each ``item`` in the list below line ``start`` its dash; return the numbers of lines touched."""
    column = _column(lines[start].replace("- ", "  "))
    end = start + 1
    while end < len(lines) and _belongs(lines[end], column, item):
        end += 1
    dashes = [_column(line) for line in lines[start + 1 : end] if line.lstrip().startswith(f"- {item}:")]
    bare = [number for number in range(start + 1, end) if re.fullmatch(rf"\s*{item}:\s*", lines[number])]
    if not bare:
        return []
    at = dashes[0] if dashes else min(_column(lines[number]) for number in bare)
    touched = []
    for number in bare:
        if not dashes and _column(lines[number]) != at:
            continue
        shift = _column(lines[number]) == at
        lines[number] = f"{' ' * at}- {lines[number].strip()}"
        touched.append(number)
        if shift:
            touched += _shift(lines, number + 1, end, at)
    return touched


def _belongs(line: str, column: int, item: str) -> bool:
    if not line.strip() or line.lstrip().startswith("#") or _column(line) > column:
        return True
    return _column(line) == column and (line.lstrip().startswith("- ") or line.strip() == f"{item}:")


def _shift(lines: list[str], start: int, end: int, at: int) -> list[int]:
    """Indent what stands exactly below a word that moved to the right behind its dash, and its children."""
    block = []
    for number in range(start, end):
        line = lines[number]
        next_item = _column(line) == at and re.match(r"\s*(?:- |match:|destination:)", line)
        if line.strip() and (_column(line) < at or next_item):
            break
        block.append(number)
    first = next((number for number in block if lines[number].strip()), None)
    if first is None or _column(lines[first]) != at:
        return []
    for number in block:
        if lines[number].strip():
            lines[number] = f"  {lines[number]}"
    return [number for number in block if lines[number].strip()]


def _column(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _apply(chunk: Chunk, lines: Sequence[str], changes: Sequence[Change]) -> Chunk:
    fixed = list(lines)
    for change in changes:
        fixed[change.number] = change.new
    return Chunk("\n".join(fixed) + "\n", chunk.first)


def _fewest(chunk: Chunk, lines: list[str], tight: list[Change], check: Check) -> list[Change]:
    """Leave out the changes that the manifest is valid without."""
    needed = list(tight)
    for change in tight if len(tight) * len(chunk.text) <= _MOST_WORK else []:
        fewer = [item for item in needed if item is not change]
        if not check(_apply(chunk, lines, _changes(lines, fewer))).errors:
            needed = fewer
    return _changes(lines, needed)


def _error(chunk: Chunk, source: str, changes: Sequence[Change]) -> ManifestError:
    reasons: dict[str, list[int]] = {}
    for change in changes:
        reasons.setdefault(change.why, []).append(change.number + chunk.first)
    told = [f"{why} (line{'s' * (len(at) > 1)} {', '.join(map(str, at))})" for why, at in reasons.items()]
    diff = "".join(
        f"\n  {number:>4} - {change.old}\n  {number:>4} + {change.new}"
        for number, change in ((change.number + chunk.first, change) for change in changes)
    )
    first = changes[0]
    what = f"the document is broken YAML: {'; '.join(told)}"
    return ManifestError(source, first.number + chunk.first, first.column, what, f"write it so:{diff}")
