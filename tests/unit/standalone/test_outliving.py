"""A fork server that outlives its daemon: the next one is forked off it, where that comes to the same."""

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from nsmesh.cli.fork_server import code, on_disk
from nsmesh.standalone import outliving
from nsmesh.standalone.fork_keeper import ready
from nsmesh.standalone.forking import spawned
from nsmesh.standalone.processes import alive

REGISTRY = ("run", "registry-memory")


async def until(condition, seconds=20):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0.01)


def is_gone(pid):
    """Say whether a process has ended; its parent, if that is this one, has not asked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid):
    with contextlib.suppress(OSError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def scenario(work, folder, *, stays=True):
    """Do ``work`` with a fork server whose daemon was killed."""

    async def main():
        forks = spawned(folder / "server", "nsm --mesh test")
        try:
            forks.follow()
            await ready(forks)
            if stays:
                forks.stay(folder / "door")
                await until((folder / "door").exists)
            asyncio.get_running_loop().remove_reader(forks._channel.fileno())
            forks._channel.close()
            await work(forks, folder / "door")
        finally:
            for pid in (*children(forks.pid), forks.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            forks._child.wait()

    asyncio.run(main())


def asked(folder, door, *arguments, **environment):
    with (folder / "log").open("ab") as out:
        return outliving.forked_daemon(door, arguments, {**os.environ, **environment}, out.fileno())


def test_the_next_daemon_is_forked_off_it(tmp_path):
    """It has the arguments, the environment, the log and a session of its own, and hears its fork server."""

    async def work(forks, door):
        url = f"unix://{tmp_path}/registry.sock"
        found = asked(tmp_path, door, *REGISTRY, NSM_LISTEN_ON=url, NSM_NAME="next")
        assert found is not None
        assert parent(found.pid) == forks.pid
        await until(lambda: os.getsid(found.pid) == found.pid)
        await until(lambda: "registry ready" in (tmp_path / "log").read_text())
        assert url in (tmp_path / "log").read_text()
        title = Path(f"/proc/{found.pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        assert title[1:3] == [b"-m", b"nsmesh.cli.main"]
        # nobody told it to stay after this one
        os.kill(found.pid, signal.SIGKILL)
        await until(lambda: not alive(found) and is_gone(forks.pid))
        assert asked(tmp_path, door, *REGISTRY) is None

    scenario(work, tmp_path)


@pytest.mark.parametrize("name", ["PYTHONPATH", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX"])
def test_who_would_become_another_one_is_not_forked(tmp_path, name):
    """What counts at the start of a program is another for it: it is started, and this one ends."""

    async def work(forks, door):
        assert asked(tmp_path, door, *REGISTRY, **{name: "/elsewhere"}) is None
        await until(lambda: is_gone(forks.pid))
        assert not (tmp_path / "log").read_text()

    scenario(work, tmp_path)


def test_who_leaves_at_once_is_no_harm(tmp_path):
    """A caller that says nothing, or has not waited, is forgotten; the next one is served."""

    async def work(forks, door):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
            caller.connect(str(door))
        os.kill(forks.pid, signal.SIGSTOP)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(outliving, "ANSWER", 0.2)
            assert asked(tmp_path, door, *REGISTRY, NSM_LISTEN_ON=f"unix://{tmp_path}/late") is None
        os.kill(forks.pid, signal.SIGCONT)
        found = asked(tmp_path, door, *REGISTRY, NSM_LISTEN_ON=f"unix://{tmp_path}/s")
        assert found is not None
        assert parent(found.pid) == forks.pid
        await until(lambda: "registry ready" in (tmp_path / "log").read_text())
        os.kill(found.pid, signal.SIGKILL)
        assert not (tmp_path / "late").exists()

    scenario(work, tmp_path)


def test_it_does_not_stay_untold(tmp_path):
    """Then it ends with its daemon, and nobody is there to ask."""

    async def work(forks, door):
        await until(lambda: is_gone(forks.pid))
        assert asked(tmp_path, door, *REGISTRY) is None

    scenario(work, tmp_path, stays=False)


def test_code_that_has_changed_on_disk_is_not_run(tmp_path):
    """A module whose file was written anew, or is gone, is another one than that in memory."""
    file = tmp_path / "outliving_sample.py"
    file.write_text("ONE = 1\n")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    try:
        known = code()
        assert str(file) in known
        assert outliving.__file__ in known
        assert on_disk(known)
        file.write_text("ONE = 1001\n")
        assert not on_disk(known)
        file.unlink()
        assert not on_disk(known)
    finally:
        del sys.modules[file.stem]
