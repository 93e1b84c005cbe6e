"""The tables of a journal's file: their versions, how they migrate, and what a file must hold to be used."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from nsmesh.core.errors import Unavailable
from nsmesh.core.process import boot_id
from nsmesh.core.sqlite_file import opened, set_aside

log = structlog.get_logger()

SCHEMA = 1
"""Version of the tables. An older file is migrated (see ``MIGRATIONS``), a newer one is set aside."""

MIGRATIONS: Mapping[int, Sequence[str]] = {}
"""Statements that lead from a version to the next one; a version that is not in it is set aside."""

_TABLES = (
    "CREATE TABLE about (version INTEGER NOT NULL, boot TEXT NOT NULL)",
    """CREATE TABLE connections (
        chain TEXT, id TEXT, connection BLOB NOT NULL, request BLOB NOT NULL, peer TEXT NOT NULL,
        state TEXT NOT NULL, PRIMARY KEY (chain, id)) WITHOUT ROWID""",
)


class _OtherVersionError(sqlite3.DatabaseError):
    """The file is whole, and this program cannot read its version."""


def readable() -> list[int]:
    """Return the versions of the tables that this program can read: its own, and those that it migrates."""
    found = [SCHEMA]
    while found[-1] - 1 in MIGRATIONS:
        found.append(found[-1] - 1)
    return found


def open_journal(path: Path) -> sqlite3.Connection:
    """Open a journal; one that cannot be read is set aside, and an empty one begun.

    Raises Unavailable where the file cannot be used at all.
    """
    try:
        return _prepared(path)
    except sqlite3.OperationalError as error:
        raise Unavailable(
            f"the journal {path} cannot be opened: {error}",
            remedy="end the other process that has it, or name another file with NSM_JOURNAL",
        ) from error
    except sqlite3.DatabaseError as error:
        aside = set_aside(path)
        kind = "of another version" if isinstance(error, _OtherVersionError) else "damaged"
        what = f"the journal is {kind} and was set aside; an empty one is begun"
        log.error(  # noqa: TRY400 - a traceback would say nothing more
            what,
            file=str(path),
            set_aside_as=str(aside),
            cause=str(error),
            remedy="nothing: connections are known again as their clients ask again, and wires stay",
        )
    return _prepared(path)


def _prepared(path: Path) -> sqlite3.Connection:
    try:
        return opened(path, _check, timeout=1.0, pragmas=("synchronous = OFF",))
    except OSError as error:
        raise Unavailable(
            f"the journal {path} cannot be made: {error.strerror}",
            remedy="name a file in a folder that this user may write, with NSM_JOURNAL",
        ) from error


def _check(database: sqlite3.Connection) -> None:
    """Make the tables, or see that they are ours and whole; raises DatabaseError."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        for statement in _TABLES:
            database.execute(statement)
        database.execute("INSERT INTO about VALUES (?, ?)", (SCHEMA, boot_id()))
        return
    if not {"about", "connections"} <= tables:
        raise sqlite3.DatabaseError(f"it has the tables {', '.join(sorted(tables))}")
    (version, boot) = database.execute("SELECT version, boot FROM about").fetchone() or (0, "")
    if version != SCHEMA:
        _migrate(database, version)
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    if boot != boot_id():
        log.info("the journal is of an earlier boot of this machine: it is begun anew")
        database.execute("DELETE FROM connections")
        database.execute("UPDATE about SET boot = ?", (boot_id(),))


def _migrate(database: sqlite3.Connection, version: int) -> None:
    """Bring tables of an older version to ours, in the caller's transaction; raises _OtherVersionError."""
    if version > SCHEMA:
        raise _OtherVersionError(
            f"a newer program wrote it: schema version {version}, and this one knows up to {SCHEMA}"
        )
    steps = range(version, SCHEMA)
    if any(step not in MIGRATIONS for step in steps):
        raise _OtherVersionError(f"nothing leads from its schema version {version} to {SCHEMA}")
    try:
        for step in steps:
            for statement in MIGRATIONS[step]:
                database.execute(statement)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:  # a full disk is no fault of the file
            raise
        raise _OtherVersionError(f"its schema version {version} cannot be migrated: {error}") from error
    database.execute("UPDATE about SET version = ?", (SCHEMA,))
    log.info("the journal was migrated", from_version=version, to_version=SCHEMA)
