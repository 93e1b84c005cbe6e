"""What SQLite's errors mean to whoever runs a registry."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from nsmesh.core.errors import Exhausted, MeshError, Unavailable

DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Primary result codes that say: the file's content is broken, not the way to it."""

_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another process has it open: end that one, or name another file",
    sqlite3.SQLITE_LOCKED: "another process has it open: end that one, or name another file",
    sqlite3.SQLITE_READONLY: "give this user the right to write the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "give this user the right to write the file and its folder",
    sqlite3.SQLITE_PERM: "give this user the right to write the file and its folder",
    sqlite3.SQLITE_CORRUPT: "restart the registry: it sets the damaged file aside and begins a new one",
    sqlite3.SQLITE_NOTADB: "restart the registry: it sets the damaged file aside and begins a new one",
    sqlite3.SQLITE_IOERR: "look at the disk (dmesg), or name a file on another one",
}


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's result code without its extension; SQLITE_ERROR for errors of the module itself."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def explain(error: sqlite3.Error, path: Path, doing: str) -> MeshError:
    """Return the error that a caller sees when SQLite failed while ``doing`` something to the file."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return Exhausted(
            f"the registry cannot {doing} {path}: its disk is full",
            remedy="free space on the disk of that file; nothing was changed, try again then",
        )
    return Unavailable(
        f"the registry cannot {doing} {path}: {error}",
        remedy=_REMEDIES.get(code, "restart the registry; if that does not help, move the file away"),
    )
