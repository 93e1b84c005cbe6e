"""A registry file: services and endpoints that outlive their process.

The file is written first and the view in memory changed after it, so what a registry has answered is in the
file, and what it could not write was never there. Finding and watching read memory alone.

Choices, and why:

* Write-ahead log, one transaction for each change. A process killed at any line loses nothing that it
  confirmed: the kernel holds what was written.
* ``synchronous`` is FULL for services and NORMAL for endpoints. A power failure loses no service, which
  nobody registers again; it may lose the last endpoints, which register themselves again within seconds.
* Calls run inline, not in a thread. A change costs some 10 microseconds (a service a fraction of a
  millisecond, a checkpoint a few), less than two switches of thread, and the order of changes is the order of
  calls.
* One process owns the file (``locking_mode = EXCLUSIVE``), because the others would not see its changes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import structlog
from google.protobuf.message import DecodeError

from nsmesh.core.errors import Unavailable
from nsmesh.core.sqlite_file import opened, set_aside
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.registry.catalogue import BACKLOG, Catalogue
from nsmesh.registry.query import ENDPOINT, SERVICE, E, Kind
from nsmesh.registry.sqlite_errors import DAMAGED, explain, primary_code
from nsmesh.registry.viewed import Viewed

log = structlog.get_logger()

SCHEMA = 1
"""Version of the tables that this program writes. A file of a later version is refused, not touched."""

_TABLES = """
CREATE TABLE schema (version INTEGER NOT NULL);
CREATE TABLE services (name TEXT PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE endpoints (name TEXT PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID;
"""


class RegistryFile:
    """One file with a store of services and a store of endpoints; a context manager that closes it.

    A damaged file is set aside beside itself with a warning, and an empty one begun: endpoints come back by
    themselves, services have to be applied again. Raises :class:`nsmesh.core.errors.Unavailable` when the
    file cannot be used: another process has it, its folder cannot be written, a later version wrote it.
    """

    def __init__(self, path: Path, *, backlog: int = BACKLOG) -> None:
        self.path = path
        self._database = _open(path)
        try:
            self.services: SqliteStore[NetworkService] = SqliteStore(
                self._database, path, SERVICE, "services", synchronous="FULL", backlog=backlog
            )
            self.endpoints: SqliteStore[NetworkServiceEndpoint] = SqliteStore(
                self._database, path, ENDPOINT, "endpoints", synchronous="NORMAL", backlog=backlog
            )
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Write what the log still holds into the file, give it free. May be called any number of times."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SqliteStore(Viewed[E]):
    """Entries of one kind in one table. See :class:`nsmesh.registry.store.Store` for its verbs."""

    def __init__(
        self,
        database: sqlite3.Connection,
        path: Path,
        kind: Kind[E],
        table: str,
        *,
        synchronous: str,
        backlog: int,
    ) -> None:
        super().__init__(Catalogue(kind, backlog=backlog))
        self._database = database
        self._path = path
        self._pragma = f"PRAGMA synchronous = {synchronous}"
        self._insert = f"INSERT OR REPLACE INTO {table} VALUES (?, ?)"  # noqa: S608 - a table of ours
        self._delete = f"DELETE FROM {table} WHERE name = ?"  # noqa: S608 - a table of ours
        self._load(table)

    def _load(self, table: str) -> None:
        with _explained(self._path, "read"):
            rows = self._database.execute(f"SELECT name, entry FROM {table}").fetchall()  # noqa: S608 - ours
        for name, body in rows:
            entry = self.kind.entry()
            try:
                entry.ParseFromString(body)
            except DecodeError:
                log.warning("registry file: an entry cannot be read", file=str(self._path), name=name)
            else:
                self._catalogue.put(entry)

    async def put(self, entry: E) -> E:
        """Write ``entry``, then show it. An entry that is not changed is shown again but not written."""
        own = copy_of(entry)
        if self._catalogue.get(own.name) != own:
            self._write(f"write {own.name!r} to", self._insert, own.name, own.SerializeToString())
        return self._catalogue.put(own)

    async def remove(self, name: str) -> bool:
        """Delete the entry from the file, then from view."""
        if self._catalogue.get(name) is None:
            return False
        self._write(f"remove {name!r} from", self._delete, name)
        self._catalogue.remove(name)
        return True

    def _write(self, doing: str, statement: str, *values: str | bytes) -> None:
        with _explained(self._path, doing):
            self._database.execute(self._pragma)
            try:
                self._database.execute(statement, values)
            except sqlite3.OperationalError as error:
                if primary_code(error) != sqlite3.SQLITE_FULL:
                    raise
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log gives its room back
                self._database.execute(statement, values)


@contextmanager
def _explained(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise explain(error, path, doing) from error


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _prepared(path)
    except sqlite3.DatabaseError as error:
        if primary_code(error) not in DAMAGED:
            raise explain(error, path, "open") from error
        aside = set_aside(path)
        log.warning(
            "the registry file is damaged and was set aside; an empty one is begun",
            file=str(path),
            set_aside_as=str(aside),
            cause=str(error),
            remedy="apply your network services again; endpoints register again by themselves",
        )
    with _explained(path, "open"):
        return _prepared(path)


def _prepared(path: Path) -> sqlite3.Connection:
    try:
        return opened(path, lambda database: _check(database, path), timeout=0.0)
    except OSError as error:
        raise Unavailable(
            f"the registry file {path} cannot be made: {error.strerror}",
            remedy="name a file in a folder that this user may write",
        ) from error


def _check(database: sqlite3.Connection, path: Path) -> None:
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        for statement in filter(str.strip, _TABLES.split(";")):
            database.execute(statement)
        database.execute("INSERT INTO schema VALUES (?)", (SCHEMA,))
        return
    if "schema" not in tables:
        raise Unavailable(
            f"{path} is an SQLite file but no registry file", remedy="name another file, or move it away"
        )
    (version,) = database.execute("SELECT max(version) FROM schema").fetchone()
    if version != SCHEMA:
        raise Unavailable(
            f"the registry file {path} has schema version {version}; this program knows version {SCHEMA}",
            remedy="run the version of nsmesh that wrote it, or move the file away",
        )
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        damage = sqlite3.DatabaseError(verdict)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage
