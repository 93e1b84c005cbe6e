"""The registry file: what survives, what is refused, what is set aside."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from nsmesh.core.errors import Exhausted, Unavailable
from nsmesh.core.virtual import run
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.registry.sqlite import SCHEMA, RegistryFile
from nsmesh.registry.sqlite_errors import explain

EVERYTHING = NetworkServiceEndpoint()


def ep(name: str, size: int = 0) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(name=name, network_service_names=["s"], url="tcp://h:1" + "x" * size)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "state" / "registry.db"


def test_entries_outlive_their_file_being_closed(path):
    """What was put is there after closing and opening again, of both kinds; what was removed is not."""

    async def main():
        with RegistryFile(path) as file:
            await file.services.put(NetworkService(name="s", payload="IP"))
            await file.endpoints.put(ep("a"))
            await file.endpoints.put(ep("b"))
            await file.endpoints.remove("a")
        with RegistryFile(path) as file:
            assert await file.services.get("s") == NetworkService(name="s", payload="IP")
            assert list(await file.endpoints.list(EVERYTHING)) == [ep("b")]
            assert list(await file.endpoints.list(ep("b"))) == [ep("b")]

    run(main())
    assert path.stat().st_mode & 0o777 == 0o600


WRITER = """
import asyncio, sys
from pathlib import Path
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.registry.sqlite import RegistryFile

async def main():
    file = RegistryFile(Path(sys.argv[1]))
    for number in range(1_000_000):
        await file.endpoints.put(NetworkServiceEndpoint(name=f"e{number}", url="tcp://h:1"))
        if number % 7 == 0:
            await file.services.put(NetworkService(name=f"s{number}"))
        if number % 3 == 2:
            await file.endpoints.remove(f"e{number - 1}")
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("pause", [0.05, 0.3])
def test_a_killed_process_loses_nothing_that_it_confirmed(path, pause):
    """After kill -9 in the middle of writing, every confirmed step is in the file, and the file is sound."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "0\n"
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        confirmed = [int(line) for line in writer.stdout if line.endswith("\n")]
    last = confirmed[-1] if confirmed else 0

    async def main():
        with RegistryFile(path) as file:
            names = {entry.name for entry in await file.endpoints.list(EVERYTHING)}
            services = {entry.name for entry in await file.services.list(NetworkService())}
        expected = {f"e{n}" for n in range(last + 1) if n % 3 != 1 or n + 1 > last}
        assert expected - {f"e{last}"} <= names
        assert len(names - expected) <= 1
        assert {f"s{n}" for n in range(0, last + 1, 7)} <= services

    with capture_logs() as logs:
        run(main())
    assert logs == []


def test_a_second_process_is_refused(path):
    """Two owners would not see each other's changes: the second is told which file is in use."""
    with RegistryFile(path), pytest.raises(Unavailable, match=r"registry\.db.*another process has it open"):
        RegistryFile(path)
    RegistryFile(path).close()


@pytest.mark.parametrize("damage", ["head", "middle", "text"])
def test_a_damaged_file_is_set_aside(path, damage):
    """A broken file does not stop the registry: it is kept under another name, a warning says so."""

    async def fill():
        with RegistryFile(path) as file:
            for number in range(200):
                await file.endpoints.put(ep(f"e{number}", size=300))

    run(fill())
    content = bytearray(path.read_bytes())
    if damage == "head":
        content[:100] = bytes(100)
    elif damage == "middle":
        content[4096 * 3 : 4096 * 12] = b"\xa5" * (4096 * 9)
    else:
        content = bytearray(b"this is no database, but long enough to look like one" * 40)
    path.write_bytes(content)

    async def main():
        with RegistryFile(path) as file:
            assert list(await file.endpoints.list(EVERYTHING)) == []
            await file.endpoints.put(ep("new"))
        with RegistryFile(path) as file:
            assert list(await file.endpoints.list(EVERYTHING)) == [ep("new")]

    with capture_logs() as logs:
        run(main())
    aside = path.with_name("registry.db.damaged-1")
    assert aside.read_bytes() == content
    (warning,) = logs
    assert warning["log_level"] == "warning"
    assert warning["set_aside_as"] == str(aside)
    assert warning["file"] == str(path)


def test_an_entry_that_cannot_be_read_is_skipped_with_a_warning(path):
    """One bad row costs that row; the rest is served."""

    async def fill():
        with RegistryFile(path) as file:
            await file.endpoints.put(ep("a"))
            await file.endpoints.put(ep("b"))

    run(fill())
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE endpoints SET entry = x'ffff' WHERE name = 'a'")
    database.close()

    async def main():
        with RegistryFile(path) as file:
            assert list(await file.endpoints.list(EVERYTHING)) == [ep("b")]

    with capture_logs() as logs:
        run(main())
    assert [(entry["name"], entry["log_level"]) for entry in logs] == [("a", "warning")]


def test_a_later_version_is_refused_and_not_touched(path):
    """A file of a newer program is neither read nor set aside."""
    RegistryFile(path).close()
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE schema SET version = ?", (SCHEMA + 1,))
    database.close()
    with pytest.raises(
        Unavailable, match=f"schema version {SCHEMA + 1}; this program knows version {SCHEMA}"
    ):
        RegistryFile(path)
    assert [file.name for file in path.parent.iterdir()] == ["registry.db"]


def test_a_file_of_something_else_is_refused(path):
    """An SQLite file that is not ours is left alone."""
    path.parent.mkdir()
    database = sqlite3.connect(path)
    with database:
        database.execute("CREATE TABLE photos (name TEXT)")
    database.close()
    with pytest.raises(Unavailable, match="no registry file"):
        RegistryFile(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """The text says which file and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"file/registry\.db cannot be made.* - name a file in a folder"):
        RegistryFile(tmp_path / "file" / "registry.db")


def test_a_full_disk_changes_nothing(path):
    """When the file cannot grow, the caller is told which one; memory and watchers show the old state."""

    async def main():
        with RegistryFile(path) as file:
            await file.endpoints.put(ep("a"))
            (pages,) = file._database.execute("PRAGMA page_count").fetchone()
            file._database.execute(f"PRAGMA max_page_count = {pages}")
            watch = file.endpoints.watch(EVERYTHING)
            await anext(watch)
            with pytest.raises(
                Exhausted, match=r"write 'b' to .*registry\.db: its disk is full - free space"
            ):
                await file.endpoints.put(ep("b", size=20_000))
            with pytest.raises(Exhausted):
                await file.endpoints.put(ep("a", size=20_000))
            assert await file.endpoints.get("b") is None
            assert list(await file.endpoints.list(EVERYTHING)) == [ep("a")]
            file._database.execute("PRAGMA max_page_count = 100000")
            await file.endpoints.put(ep("c"))
            assert (await anext(watch)).entry.name == "c"
            watch.close()
        with RegistryFile(path) as file:
            assert {e.name for e in await file.endpoints.list(EVERYTHING)} == {"a", "c"}

    run(main())


def test_a_closed_file_says_unavailable(path):
    """A write after the end is an error of the mesh, not of the driver; reading still answers."""

    async def main():
        file = RegistryFile(path)
        await file.endpoints.put(ep("a"))
        file.close()
        file.close()
        with pytest.raises(Unavailable, match="closed database"):
            await file.endpoints.put(ep("b"))
        assert await file.endpoints.get("a") == ep("a")

    run(main())


def test_an_unchanged_entry_is_not_written(path):
    """Registering a service again and again costs no write."""

    async def main():
        with RegistryFile(path) as file:
            for _ in range(3):
                await file.services.put(NetworkService(name="s"))
            assert file._database.total_changes == 2  # the schema's version and one service

    run(main())


def test_unknown_errors_say_what_to_try():
    """An error without a code of its own still names the file and a way out."""
    error = explain(sqlite3.ProgrammingError("strange"), Path("/x/registry.db"), "open")
    assert isinstance(error, Unavailable)
    assert "/x/registry.db" in str(error)
    assert "restart" in error.remedy
