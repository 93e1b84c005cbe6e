"""Tables, JSON and YAML on standard output."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

FORMATS = ("table", "wide", "json", "yaml")

_COLOURS = {
    "up": "green",
    "running": "green",
    "ready": "green",
    "down": "red",
    "dead": "red",
    "deleted": "red",
    "failed": "red",
}


def cell(value: Any) -> str:
    """Return how a value reads in a table."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in sorted(value.items())) or "-"
    if isinstance(value, list | tuple):
        return ",".join(cell(item) for item in value) or "-"
    return str(value)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, header: bool = True) -> str:
    """Return rows under columns, aligned; wide tables are cut to the terminal only on one."""
    grid = [[column.replace("_", " ").upper() for column in columns]] if header else []
    grid += [[cell(row.get(column)) for column in columns] for row in rows]
    widths = [max((len(line[i]) for line in grid), default=0) for i in range(len(columns))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in grid]
    limit = shutil.get_terminal_size((200, 24)).columns if sys.stdout.isatty() else None
    return "\n".join(line.rstrip()[:limit] for line in lines)


def coloured(text: str) -> str:
    """Colour the well-known states in a line; click drops colours where there is no terminal."""
    words = text.split("  ")
    return "  ".join(
        click.style(word, fg=_COLOURS[word.strip().lower()]) if word.strip().lower() in _COLOURS else word
        for word in words
    )


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], style: str) -> None:
    """Print rows as a table, or whole as JSON or YAML."""
    if style == "json":
        click.echo(json.dumps(list(rows), indent=2, ensure_ascii=False))
    elif style == "yaml":
        click.echo(as_yaml(list(rows)), nl=False)
    elif rows:
        for line in table(rows, columns).splitlines():
            click.echo(coloured(line))


def as_yaml(data: Any) -> str:
    """Return plain data as YAML, in the order that it has."""
    import yaml  # noqa: PLC0415 - a sixth of the start of a command that prints a table

    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    return text
