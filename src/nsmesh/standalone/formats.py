"""The files that outlive a process, by the version of their tables: what this program writes and can read."""

from __future__ import annotations

from nsmesh.journal import tables as journal
from nsmesh.registry import sqlite as registry

Formats = dict[str, int]
"""Version of the tables, by kind of file."""


def writes() -> Formats:
    """Return the versions that this program writes."""
    return {"journal": journal.SCHEMA, "registry": registry.SCHEMA}


def reads() -> dict[str, list[int]]:
    """Return the versions that this program can read, those that it migrates among them."""
    return {"journal": journal.readable(), "registry": [registry.SCHEMA]}


def unreadable(written: Formats, readable: dict[str, list[int]]) -> list[str]:
    """Return, in words, what was written and cannot be read."""
    return [
        f"the {kind} has tables of version {version}, and it reads {_words(readable.get(kind, []))}"
        for kind, version in sorted(written.items())
        if version not in readable.get(kind, [])
    ]


def _words(versions: list[int]) -> str:
    return ", ".join(map(str, sorted(versions))) or "none"
