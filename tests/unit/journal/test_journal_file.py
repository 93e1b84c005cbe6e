"""The journal: what it has written outlives its process, and nothing that is wrong with its file ends one."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import chain
from nsmesh.core.errors import Unavailable
from nsmesh.core.journalling import GRACE, Record
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.elements.ipam import Ipam
from nsmesh.elements.monitor import Monitor
from nsmesh.elements.timeout import Timeout
from nsmesh.journal import tables
from nsmesh.journal.file import WRITES, FileJournal
from nsmesh.model.messages import Connection, NetworkServiceRequest, Path, PathSegment
from nsmesh.model.times import timestamp

RECORD = Record(b"connection", b"request", "[]", {"key": b"\0value"})


def test_what_is_written_is_there_again(tmp_path):
    """Put, drop and wait in one turn; the next one who opens the file reads what is left."""

    async def first():
        with FileJournal(tmp_path / "j.db") as journal:
            for name in "abc":
                journal.put("chain", name, RECORD)
            journal.put("other", "a", RECORD)
            journal.drop("chain", "b")
            await journal.written()

    asyncio.run(first())
    with FileJournal(tmp_path / "j.db") as journal:
        assert journal.records("chain") == {"a": RECORD, "c": RECORD}
        assert list(journal.records("other")) == ["a"]


def test_a_kill_loses_nothing_that_was_written(tmp_path):
    """SIGKILL right after ``written``: the file has it, though nobody closed it or called fsync."""
    program = f"""
import asyncio, os, signal
from pathlib import Path
from nsmesh.core.journalling import Record
from nsmesh.journal.file import WRITES, FileJournal
async def main():
    journal = FileJournal(Path({str(tmp_path / "j.db")!r}))
    for number in range(1000):
        journal.put("chain", str(number), Record(b"c" * 1000, b"r", "[]", {{}}))
        if number % 10 == 9:
            await journal.written()
    journal.put("chain", "late", Record(b"c", b"r", "[]", {{}}))
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    with FileJournal(tmp_path / "j.db") as journal:
        assert len(journal.records("chain")) == 1000


@pytest.mark.parametrize("damage", ["text", "half", "tables"])
def test_a_damaged_file_is_set_aside(tmp_path, damage):
    """It is renamed, said loudly, and an empty one is begun."""
    path = tmp_path / "j.db"

    async def fill():
        with FileJournal(path) as journal:
            for number in range(300):
                journal.put("chain", str(number), Record(b"c" * 500, b"r", "[]", {}))
            await journal.written()

    asyncio.run(fill())
    if damage == "text":
        path.write_text("this is no database" * 100)
    elif damage == "half":
        body = path.read_bytes()
        path.write_bytes(body[: len(body) // 2] + bytes(len(body) // 2))
    else:
        database = sqlite3.connect(path)
        database.execute("DROP TABLE connections")
        database.commit()
        database.close()
    with capture_logs() as logs, FileJournal(path) as journal:
        assert journal.records("chain") == {}
    assert [one["log_level"] for one in logs] == ["error"]
    assert "damaged" in logs[0]["event"]
    assert (tmp_path / "j.db.damaged-1").exists()


def _filled(path):
    async def fill():
        with FileJournal(path) as journal:
            journal.put("chain", "a", RECORD)
            await journal.written()

    asyncio.run(fill())


def test_an_older_journal_is_migrated(tmp_path, monkeypatch):
    """Each step from its version to ours is taken in order, and every record is there afterwards."""
    path = tmp_path / "j.db"
    _filled(path)
    monkeypatch.setattr("nsmesh.journal.tables.SCHEMA", tables.SCHEMA + 2)
    steps = {1: ["ALTER TABLE about ADD COLUMN note TEXT"], 2: ["UPDATE about SET note = 'moved'"]}
    monkeypatch.setattr("nsmesh.journal.tables.MIGRATIONS", steps)
    for _ in range(2):  # the second one finds a file of its own version
        with FileJournal(path) as journal:
            assert journal.records("chain") == {"a": RECORD}
            row = journal._database.execute("SELECT version, note FROM about").fetchone()
            assert row == (3, "moved")
    assert not (tmp_path / "j.db.damaged-1").exists()


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    """The file that is set aside is as the older program left it: that program can have it back."""
    path = tmp_path / "j.db"
    _filled(path)
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr("nsmesh.journal.tables.SCHEMA", 2)
        steps = {1: ["ALTER TABLE about ADD COLUMN note TEXT", "INSERT INTO about VALUES (1)"]}
        patch.setattr("nsmesh.journal.tables.MIGRATIONS", steps)
        with FileJournal(path) as journal:
            assert journal.records("chain") == {}
    assert "cannot be migrated" in logs[0]["cause"]
    with FileJournal(tmp_path / "j.db.damaged-1") as journal:
        assert journal.records("chain") == {"a": RECORD}


def test_a_newer_journal_is_said_to_be_newer(tmp_path):
    """It is set aside whole, and the sentence says that another program wrote it."""
    path = tmp_path / "j.db"
    _filled(path)
    database = sqlite3.connect(path)
    database.execute("UPDATE about SET version = 99")
    database.commit()
    database.close()
    with capture_logs() as logs, FileJournal(path) as journal:
        assert journal.records("chain") == {}
    assert "of another version" in logs[0]["event"]
    assert "a newer program wrote it: schema version 99" in logs[0]["cause"]
    assert (tmp_path / "j.db.damaged-1").exists()


def test_a_journal_of_an_earlier_boot_is_begun_anew(tmp_path, monkeypatch):
    """Interfaces, namespaces and processes are gone with the boot, and so is what was agreed of them."""

    async def fill():
        with FileJournal(tmp_path / "j.db") as journal:
            journal.put("chain", "a", RECORD)
            await journal.written()

    asyncio.run(fill())
    monkeypatch.setattr("nsmesh.journal.tables.boot_id", lambda: "another")
    with FileJournal(tmp_path / "j.db") as journal:
        assert journal.records("chain") == {}


def test_one_process_has_it(tmp_path):
    """A second one is told so, in words."""
    with FileJournal(tmp_path / "j.db"), pytest.raises(Unavailable, match="cannot be opened"):
        FileJournal(tmp_path / "j.db")


def test_a_write_that_fails_is_said_and_tried_again(tmp_path):
    """Nobody waits for it, and what was pending is written when it works again."""

    async def failed():
        return sum(one.value for one in await WRITES.samples() if one.labels["outcome"] == "failed")

    async def main():
        before = await failed()
        with FileJournal(tmp_path / "j.db") as journal, capture_logs() as logs:
            journal._database.execute("PRAGMA query_only = 1")
            journal.put("chain", "a", RECORD)
            await journal.written()
            journal.put("chain", "b", RECORD)
            await journal.written()
            assert [one["log_level"] for one in logs] == ["error"]
            assert await failed() > before, "nsm_journal_writes"
            journal._database.execute("PRAGMA query_only = 0")
            journal._flush()
            assert set(journal.records("chain")) == {"a", "b"}

    asyncio.run(main())


def test_a_journal_is_whole_from_when_somebody_vouches_for_it(tmp_path):
    """Also for who opens it next; one that is begun anew beside an old mark is not."""
    path = tmp_path / "j.db"

    async def vouch():
        with FileJournal(path) as journal:
            assert not journal.whole
            journal.vouch()
            assert journal.whole
            assert journal.chains() == []

    asyncio.run(vouch())
    with FileJournal(path) as journal:
        assert journal.whole
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with FileJournal(path) as journal:
        assert not journal.whole


@pytest.mark.parametrize("recovers", [False, True])
def test_a_journal_that_could_not_be_written_is_not_whole(tmp_path, recovers):
    """Unless all of it was written in the end."""

    async def main():
        with FileJournal(tmp_path / "j.db") as journal:
            journal.vouch()
            await journal.written()
            journal._database.execute("PRAGMA query_only = 1")
            journal.put("chain", "a", RECORD)
            await journal.written()
            if recovers:
                journal._database.execute("PRAGMA query_only = 0")
                journal._flush()

    asyncio.run(main())
    with FileJournal(tmp_path / "j.db") as journal:
        assert journal.whole == recovers


def server(journal):
    begin, ipam = Begin(journal), Ipam([["10.0.0.0/29"]])
    monitor = Monitor("nse")
    made = chain(begin, Timeout(), monitor, ipam, name="endpoint nse", clock=VirtualClock())
    return begin, ipam, monitor, made


def addresses(connection):
    context = connection.context.ip_context
    return [*context.src_ip_addrs, *context.dst_ip_addrs]


def asked(name, life=600.0):
    now = EPOCH + asyncio.get_running_loop().time()
    segments = [PathSegment(name="client", id="client-0", expires=timestamp(now + life))]
    segments.append(PathSegment(name="nse", id=name))
    return NetworkServiceRequest(connection=Connection(id=name, path=Path(index=1, path_segments=segments)))


def test_a_chain_goes_on_where_its_predecessor_was_killed(tmp_path):
    """Leases, monitor and timer are as they were, what was closed is gone, nothing is given out twice."""

    async def main():
        caller = Call(peer=Peer(spiffe_id="spiffe://domain/client"))
        journal = FileJournal(tmp_path / "j.db")
        _, _, _, handler = server(journal)
        async with handler.running():
            first = await handler.request(caller, asked("a"))
            second = await handler.request(caller, asked("b", life=60.0))
            await handler.close(caller, second)
            third = await handler.request(caller, asked("c", life=100.0))
            journal.close()  # as a kill does: what comes after it is never written
            journal.put = journal.drop = lambda *_: None
        again = FileJournal(tmp_path / "j.db")
        begin, ipam, monitor, handler = server(again)
        async with handler.running():
            assert {one.id: one for one in begin.connections} == {"a": first, "c": third}
            assert set(ipam.leases) == {"a", "c"} == set(monitor.hub.ids)
            fresh = await handler.request(caller, asked("d"))
            given = [address for one in (first, third, fresh) for address in addresses(one)]
            assert len(given) == len(set(given)) == 6
            await asyncio.sleep(101)
            assert set(ipam.leases) == {"a", "d"}
            assert begin.orphans() == []
            for one in (first, fresh):
                await handler.close(caller, one)
            assert again.records("endpoint nse") == {}
        again.close()

    run(main())


def test_a_connection_that_ran_out_meanwhile_has_a_while(tmp_path):
    """Its client could not refresh it while nobody was there."""

    async def main():
        caller = Call(peer=Peer(spiffe_id="spiffe://domain/client"))
        with FileJournal(tmp_path / "j.db") as journal:
            *_, handler = server(journal)
            async with handler.running():
                await handler.request(caller, asked("a", life=20.0))
            await asyncio.sleep(1000)
            begin, *_, handler = server(journal)
            async with handler.running():
                await asyncio.sleep(GRACE - 1)
                assert len(begin.connections) == 1
                await asyncio.sleep(2)
                assert begin.connections == []

    run(main())


def test_a_disk_that_nothing_can_be_written_to_ends_no_retries(tmp_path, monkeypatch):
    """Neither the table nor the mark can be touched: it is tried again, and nobody waits for ever."""

    def refuse(*_, **__):
        raise OSError("read-only")

    def fail(*_):
        raise sqlite3.OperationalError("disk I/O error")

    async def main():
        with FileJournal(tmp_path / "j.db") as journal, monkeypatch.context() as patch:
            patch.setattr("pathlib.Path.unlink", refuse)
            patch.setattr(journal, "_transact", fail)
            journal.put("chain", "a", RECORD)
            async with asyncio.timeout(5):
                await journal.written()
            patch.undo()
            async with asyncio.timeout(5):
                while not journal.records("chain"):  # noqa: ASYNC110 - nothing tells when it was tried again
                    await asyncio.sleep(0.05)

    asyncio.run(main())
