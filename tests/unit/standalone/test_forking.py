"""The fork server: what it starts is what was asked for, how it ends is told, nothing hangs on its life."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from nsmesh.core.errors import Unavailable
from nsmesh.rpc.address import parse
from nsmesh.rpc.listening import listen
from nsmesh.standalone.fork_keeper import ready
from nsmesh.standalone.forking import spawned
from nsmesh.standalone.processes import Command, alive

REGISTRY = ("run", "registry-memory")


def command(folder, *arguments, **environment):
    argv = [sys.executable, "-m", "nsmesh.cli.main", *arguments]
    return Command(argv, folder / "log", environment=environment, directory=str(folder))


async def until(condition, seconds=10):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0.01)


def scenario(work):
    async def main(folder):
        forks = spawned(folder / "server", "nsm --mesh test")
        with contextlib.closing(forks):
            forks.follow()
            await ready(forks)
            await work(forks, folder)

    return main


def words(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")


def test_what_it_starts(tmp_path):
    """A role runs with its own environment, folder, log, session and title, on the socket that is passed."""

    async def work(forks, folder):
        url = f"unix://{folder}/registry.sock"
        with listen(parse(url), 0o600) as sock:
            environment = {"NSM_LISTEN_ON": url, "NSM_NAME": "r1"}
            run = command(folder, *REGISTRY, **environment)
            begun = time.monotonic()
            found = forks.start(run, "registry", "nsm --mesh test run registry-memory", [sock.fileno()])
            assert time.monotonic() - begun < 1.0
            try:
                await until(lambda: "registry ready" in (folder / "log").read_text())
                there = Path(f"/proc/{found.pid}")
                assert words(found.pid) == b"nsm --mesh test run registry-memory".split()
                assert (there / "comm").read_text() == "nsm:registry\n"
                assert (there / "cwd").readlink() == folder
                assert os.getsid(found.pid) == found.pid
                assert socket_inode(sock) in sockets_of(found.pid)
                assert len(sockets_of(found.pid) & sockets_of(forks.pid)) == 0
            finally:
                os.kill(found.pid, signal.SIGTERM)
                codes = []
                forks.end_of(found, codes.append)
            await until(lambda: codes)
            assert codes == [0]
            assert (folder / "registry.sock").exists()  # it is ours

    asyncio.run(scenario(work)(tmp_path))


def socket_inode(sock):
    return f"socket:[{os.fstat(sock.fileno()).st_ino}]"


def sockets_of(pid):
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(entry.readlink()))
    return {name for name in found if name.startswith("socket:")}


def test_how_it_ended_is_told(tmp_path):
    """An exit code, a signal; asked for before the end and after it."""

    async def work(forks, folder):
        codes = []
        failed = forks.start(command(folder, "run", "no-such-role"), "x", "x")
        await until(lambda: not alive(failed))
        await asyncio.sleep(0.05)
        forks.end_of(failed, codes.append)
        await until(lambda: codes)
        killed = forks.start(command(folder, *REGISTRY, NSM_LISTEN_ON=f"unix://{folder}/s"), "x", "x")
        forks.end_of(killed, codes.append)
        os.kill(killed.pid, signal.SIGKILL)
        await until(lambda: len(codes) == 2)
        assert codes == [2, -signal.SIGKILL]

    asyncio.run(scenario(work)(tmp_path))


def test_what_it_started_outlives_it(tmp_path):
    """Killed, it takes nobody along, tells who waits that nothing is known, and starts nothing more."""

    async def work(forks, folder):
        run = command(folder, *REGISTRY, NSM_LISTEN_ON=f"unix://{folder}/s")
        found = forks.start(run, "x", "x")
        codes, gone = [], []
        forks.on_gone = lambda: gone.append(True)
        try:
            forks.end_of(found, codes.append)
            os.kill(forks.pid, signal.SIGKILL)
            await until(lambda: gone)
            assert codes == [None]
            with pytest.raises(Unavailable):
                forks.start(run, "x", "x")
            await until(lambda: "registry ready" in (folder / "log").read_text())
        finally:
            os.kill(found.pid, signal.SIGKILL)

    asyncio.run(scenario(work)(tmp_path))


def test_it_ends_with_whoever_started_it(tmp_path):
    """The other end of its channel is all that keeps it alive."""

    async def work(forks, folder):
        pid = forks.pid
        forks.close()
        assert not Path(f"/proc/{pid}").exists()

    asyncio.run(scenario(work)(tmp_path))


def test_another_python_that_has_no_nsmesh(tmp_path):
    """It is told at once that there is no fork server, and why is in its output."""

    async def main():
        forks = spawned(tmp_path / "server", "nsm", "/bin/false")
        with contextlib.closing(forks):
            forks.follow()
            await ready(forks)
            assert forks.gone
            assert not forks.version
        with pytest.raises(Unavailable, match="/no/python cannot be run"):
            spawned(tmp_path / "server", "nsm", "/no/python")

    asyncio.run(main())


def test_the_channel_is_of_whole_messages():
    """What the protocol relies on: a message is read as it was sent, or the other side is gone."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.send(b"one")
        ours.send(b"two")
        assert [theirs.recv(99), theirs.recv(99)] == [b"one", b"two"]
        ours.close()
        assert theirs.recv(99) == b""
