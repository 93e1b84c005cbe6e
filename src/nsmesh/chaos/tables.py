"""Tables of a document: how they are written, and read again."""

from __future__ import annotations

from collections.abc import Iterable


def table(head: str, rows: Iterable[Iterable[object]]) -> str:
    """Return a table; ``head``: the names of its columns, with ``|`` between them."""
    lines = [f"| {head} |", "|" + "---|" * (head.count("|") + 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, cells)) + " |" for cells in rows)])


def lines(text: str) -> list[str]:
    """Return the rows of the table in a text, as they stand there."""
    return [line for line in text.splitlines() if line.startswith("|")][2:]


def cells(line: str) -> list[str]:
    """Return the cells of a row."""
    return [cell.strip() for cell in line.split("|")[1:-1]]
