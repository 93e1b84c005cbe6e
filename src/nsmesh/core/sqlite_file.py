"""A file of SQLite that one process has for itself: opening it, and setting a damaged one aside."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path


def opened(
    path: Path, check: Callable[[sqlite3.Connection], None], *, timeout: float, pragmas: Iterable[str] = ()
) -> sqlite3.Connection:
    """Open a file, or make it (mode 0600) with its folder, with a write-ahead log and for us alone.

    ``check`` makes or looks at its tables, in one transaction. ``timeout``: seconds that another process may
    have it meanwhile. Raises OSError where it cannot be made, and what SQLite and ``check`` raise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    database = sqlite3.connect(path, isolation_level=None, timeout=timeout)
    try:
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", *pragmas):
            database.execute(f"PRAGMA {pragma}")
        database.execute("BEGIN IMMEDIATE")
        check(database)
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def set_aside(path: Path) -> Path:
    """Rename a damaged file and its log, to the first free ``NAME.damaged-N``; return where it is now."""
    aside = next(
        candidate
        for number in count(1)
        if not (candidate := path.with_name(f"{path.name}.damaged-{number}")).exists()
    )
    for suffix in ("-wal", "-shm", "-journal"):
        log = path.with_name(path.name + suffix)
        if log.exists():
            log.rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    return aside
