"""Starting the daemon of a mesh in the background, and waiting for its end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from nsmesh import rpc
from nsmesh.core.errors import Internal, MeshError, Unavailable
from nsmesh.core.process import start_ticks
from nsmesh.standalone.lock import conflict, daemon_pid, holder
from nsmesh.standalone.outliving import forked_daemon
from nsmesh.standalone.paths import MeshPaths
from nsmesh.standalone.processes import NSM, Started, alive, stop_each
from nsmesh.standalone.telling import last_words

START_TIMEOUT = 20.0
"""Seconds within which a daemon must answer; it may have to clean up after a dead one first."""
PATIENCE = 5.0
"""Seconds that one may take to end that did not start."""
ALONE = 2.0
"""Seconds that nobody may hold the lock between one daemon and the next."""


async def answers(paths: MeshPaths) -> bool:
    """Say whether somebody answers at the control socket."""
    try:
        client = await rpc.connect(f"unix://{paths.control}", timeout=1.0)
    except MeshError:
        return False
    await client.aclose()
    return True


async def launch(
    paths: MeshPaths,
    arguments: Sequence[str],
    executable: str = sys.executable,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Start ``nsm up --foreground`` with ``arguments`` in the background; return its pid when it answers.

    ``executable``: by which Python. ``environment``: what its own has besides ours. By our own Python it is
    forked off what a killed daemon left, where that can be.

    Raises Internal with the end of its log when it ends or does not answer in time. Cancelling ends it.
    """
    log = paths.logs / "daemon.log"
    begin = log.stat().st_size if log.exists() else 0
    child, whole = None, {**os.environ, **environment}
    with log.open("ab") as out:
        ours = executable == sys.executable
        daemon = forked_daemon(paths.fork_server, arguments, whole, out.fileno()) if ours else None
        if daemon is None:
            child = subprocess.Popen(
                [executable, *NSM, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                cwd="/",
                env=whole,
            )
            daemon = Started(child.pid, start_ticks(child.pid) or 0)
    try:
        return await _answering(paths, daemon, log, begin)
    except BaseException:
        # it is of no use; by the book first, so that it takes its own things along
        await stop_each([daemon], PATIENCE)
        raise
    finally:
        if child is not None:
            child.poll()


async def _answering(paths: MeshPaths, daemon: Started, log: Path, begin: int) -> int:
    end = asyncio.get_running_loop().time() + START_TIMEOUT
    while asyncio.get_running_loop().time() < end:
        if not alive(daemon):
            other = holder(paths.lock)
            if other is not None:  # somebody else was quicker; the last words of the log are theirs
                raise conflict(paths, other)
            raise Internal(
                f"the daemon of the mesh {paths.mesh} did not start: {last_words(log, begin)}",
                remedy=f"see {log}, or run it in front of you: nsm up --foreground",
            )
        if paths.control.exists() and daemon_pid(paths) == daemon.pid and await answers(paths):
            return daemon.pid
        await asyncio.sleep(0.02)
    raise Internal(
        f"the daemon of the mesh {paths.mesh} did not answer within {START_TIMEOUT:g} s: "
        f"{last_words(log, begin)}",
        remedy=f"see {log}, or run it in front of you: nsm up --foreground",
    )


async def succeeded(paths: MeshPaths) -> int:
    """Wait for the daemon that follows one which has ended; return its pid when it answers.

    Raises Internal with the end of its log when there is none, or it does not answer.
    """
    log, loop = paths.logs / "daemon.log", asyncio.get_running_loop()
    alone = end = loop.time() + START_TIMEOUT
    while loop.time() < end:
        pid = daemon_pid(paths)
        if pid and await answers(paths):
            return pid
        alone = loop.time() + ALONE if pid else min(alone, loop.time() + ALONE)
        if loop.time() >= alone:
            break
        await asyncio.sleep(0.01)
    raise Internal(
        f"the next daemon of the mesh {paths.mesh} does not answer: {last_words(log)}",
        remedy=f"see {log}; wires stay, and this goes on with them: nsm --mesh {paths.mesh} up",
    )


async def wait_gone(paths: MeshPaths, pid: int, timeout: float = 30.0) -> None:
    """Wait until the daemon of that pid is gone altogether; raises Unavailable after ``timeout`` seconds."""
    daemon = Started(pid, start_ticks(pid) or 0)
    end = asyncio.get_running_loop().time() + timeout
    while alive(daemon):
        if asyncio.get_running_loop().time() > end:
            raise Unavailable(
                f"the daemon of the mesh {paths.mesh} (pid {pid}) does not end",
                remedy=f"kill -9 {pid}, then once more: nsm --mesh {paths.mesh} down",
            )
        await asyncio.sleep(0.01)
