"""A journal in an SQLite file: one transaction for each turn of the event loop, and no fsync.

What it keeps speaks of interfaces, namespaces and processes, none of which outlives this boot of the machine.
So it has to survive the end of its process, which the kernel sees to from the moment of the ``write``, and
nothing else: ``synchronous = OFF``, and a journal of an earlier boot is begun anew.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import uuid
from pathlib import Path
from typing import Self

import structlog

from nsmesh.core.journalling import Record
from nsmesh.core.metrics import Counter
from nsmesh.journal.tables import open_journal

log = structlog.get_logger()

WRITES = Counter("nsm_journal_writes", "Transactions of the journal, by how they ended.", ("outcome",))

_PUT = "INSERT OR REPLACE INTO connections VALUES (?, ?, ?, ?, ?, ?)"
_DROP = "DELETE FROM connections WHERE chain = ? AND id = ?"
_AGAIN = 1.0
"""Seconds after a transaction that failed until the next try."""


WHOLE = "whole"
"""Chain of the one record that has the seal, and end of the name of the file that has it too.

A journal without either of them is not whole. The file is deleted, which a full disk allows, when something
that was told could not be written.
"""


class FileJournal:
    """Implements :class:`nsmesh.core.journalling.Journal`; a context manager that writes the rest and closes.

    A file of an older version is migrated. A damaged or newer one is set aside beside itself, loudly, and an
    empty one begun: connections come back as their clients ask again.
    Raises Unavailable where the file cannot be used at all: another process has it, or its folder cannot be
    written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = open_journal(path)
        self._pending: dict[tuple[str, str], Record | None] = {}
        self._turn: asyncio.Handle | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._failing = False
        self._mark = path.with_name(f"{path.name}-{WHOLE}")
        self._seal = next(iter(self.records(WHOLE)), "")
        self._whole = bool(self._seal) and _text(self._mark) == self._seal

    @property
    def whole(self) -> bool:
        """See :class:`nsmesh.core.journalling.Journal`."""
        return self._whole

    def vouch(self) -> None:
        """See :meth:`nsmesh.core.journalling.Journal.vouch`."""
        if not self._seal:
            self._seal = uuid.uuid4().hex
            self.put(WHOLE, self._seal, Record(b"", b"", "", {}))
        self._whole = True
        if not self._failing:
            self._put_mark()

    def _put_mark(self) -> None:
        try:
            self._mark.write_text(self._seal)
        except OSError as error:
            log.warning("the journal is not marked as whole", file=str(self._mark), error=str(error))

    def _drop_mark(self) -> None:
        try:
            self._mark.unlink(missing_ok=True)
        except OSError as error:  # a disk that nothing can be written to
            log.warning("the journal stays marked as whole", file=str(self._mark), error=str(error))

    def put(self, chain: str, connection_id: str, record: Record) -> None:
        """See :meth:`nsmesh.core.journalling.Journal.put`."""
        self._pending[chain, connection_id] = record
        self._soon()

    def drop(self, chain: str, connection_id: str) -> None:
        """See :meth:`nsmesh.core.journalling.Journal.drop`."""
        self._pending[chain, connection_id] = None
        self._soon()

    def _soon(self) -> None:
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._flush)

    def records(self, chain: str) -> dict[str, Record]:
        """See :meth:`nsmesh.core.journalling.Journal.records`."""
        self._write()
        query = "SELECT id, connection, request, peer, state FROM connections WHERE chain = ?"
        found = {}
        try:
            for name, connection, request, peer, state in self._database.execute(query, (chain,)):
                packed = {key: bytes.fromhex(body) for key, body in json.loads(state).items()}
                found[name] = Record(connection, request, peer, packed)
        except (sqlite3.Error, ValueError) as error:
            log.error("the journal cannot be read", file=str(self.path), chain=chain, error=str(error))  # noqa: TRY400 - a traceback would say nothing more
        return found

    async def written(self) -> None:
        """See :meth:`nsmesh.core.journalling.Journal.written`; all who wait in one turn share it."""
        if not self._pending or self._failing:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _flush(self) -> None:
        self._turn = None
        self._write()
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _write(self) -> None:
        """Write what is pending; when that fails it stays pending, is said once, and tried again."""
        if not self._pending:
            return
        try:
            self._transact()
        except sqlite3.Error as error:
            WRITES.add("failed")
            if not self._failing:
                log.error(  # noqa: TRY400 - a traceback would say nothing more
                    "the journal cannot be written: what is agreed from now on is lost with this process",
                    file=str(self.path),
                    error=str(error),
                    remedy="free space on its disk; it is tried again every second",
                )
                self._drop_mark()
            self._failing = True
            if self._turn is None:
                self._turn = asyncio.get_running_loop().call_later(_AGAIN, self._flush)
        else:
            WRITES.add("OK")
            self._pending.clear()
            if self._failing and self._whole:
                self._put_mark()
            self._failing = False

    def _transact(self) -> None:
        put = [
            (*key, record.connection, record.request, record.peer, _packed(record))
            for key, record in self._pending.items()
            if record is not None
        ]
        drop = [key for key, record in self._pending.items() if record is None]
        if len(put) + len(drop) == 1:  # a statement of its own is a transaction of its own
            self._database.execute(_PUT if put else _DROP, (put or drop)[0])
            return
        with self._database:
            self._database.execute("BEGIN")
            if put:
                self._database.executemany(_PUT, put)
            if drop:
                self._database.executemany(_DROP, drop)

    def chains(self) -> list[str]:
        """See :meth:`nsmesh.core.journalling.Journal.chains`."""
        self._write()
        names = self._database.execute("SELECT DISTINCT chain FROM connections WHERE chain != ?", (WHOLE,))
        return [name for (name,) in names]

    def close(self) -> None:
        """Write the rest and give the file free. May be called any number of times."""
        if self._turn is not None:
            self._turn.cancel()
        try:
            if self._pending:
                self._transact()
                self._pending.clear()
        except sqlite3.Error as error:
            log.warning("the end of the journal was not written", file=str(self.path), error=str(error))
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def forget_journal(path: Path) -> None:
    """Delete a journal that nobody has open; one that is not there is no harm."""
    for suffix in ("", "-wal", "-shm", f"-{WHOLE}"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _packed(record: Record) -> str:
    return json.dumps({key: body.hex() for key, body in record.state.items()}, separators=(",", ":"))
