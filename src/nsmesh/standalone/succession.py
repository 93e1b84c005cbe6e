"""From one daemon to the next: the next one is started with the sockets of this one, and waits.

It imports all that it needs and says that it is ready; only then this one ends, by the book. So a next one
that cannot even start changes nothing, and who asks in between waits in the backlog of a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import MutableMapping
from dataclasses import dataclass

from nsmesh import rpc
from nsmesh.core.errors import Refused, Unavailable
from nsmesh.core.process import start_ticks
from nsmesh.rpc import inherited
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.processes import NSM, Started, alive
from nsmesh.standalone.telling import last_words

VARIABLE = "NSM_SUCCEEDS"
"""``PID:FD`` in the environment of a successor: whom it succeeds, and where it says that it is ready."""
READY = 20.0
"""Seconds within which a successor must be ready."""
GOODBYE = 30.0
"""Seconds that a predecessor may take to end, once its successor is ready."""

_AT_START: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Predecessor:
    """Whom this daemon succeeds. ``fd``: where it hears that we are ready."""

    process: Started
    fd: int

    def wait(self) -> None:
        """Say that we are ready, and wait for its end; raises Unavailable when that does not come.

        That comes too when it is killed meanwhile.
        """
        with contextlib.suppress(OSError):  # it has given us up; then it will not end, either
            os.write(self.fd, b"ready")
        os.close(self.fd)
        end = time.monotonic() + GOODBYE
        while alive(self.process):
            if time.monotonic() > end:
                raise Unavailable(
                    f"the daemon {self.process.pid} does not end for its successor",
                    remedy="the mesh goes on with it; see what it does: nsm logs daemon",
                )
            time.sleep(0.002)


def begin(environment: MutableMapping[str, str]) -> Predecessor | None:
    """Take over sockets, and remember the environment for a successor; return whom we succeed, if anybody.

    Before anything is forked off or changes the environment. Raises Invalid for variables that make no sense.
    """
    word = environment.pop(VARIABLE, "")
    rpc.take_from_environment(environment)
    _AT_START.clear()  # of the daemon before, where this one was forked off what that left
    _AT_START.update(environment)
    if not word:
        return None
    pid, _, fd = word.partition(":")
    os.set_inheritable(int(fd), False)  # noqa: FBT003 - its face
    return Predecessor(Started(int(pid), start_ticks(int(pid)) or 0), int(fd))


async def prepare(mesh: Mesh, executable: str) -> int:
    """Start a successor of this daemon by a Python, wait until it is ready, and return its pid.

    From then on our sockets are its own as well. Raises Refused for a daemon that somebody else has to start,
    and Unavailable for a successor that does not get ready; nothing has changed then.
    """
    if tuple(sys.orig_argv[1:3]) != NSM or os.getsid(0) != os.getpid():
        raise Refused(
            f"the daemon (pid {os.getpid()}) was started by something else than nsm up in the background",
            remedy="let that start it again; a daemon that is killed is gone on with as well",
        )
    log = mesh.paths.logs / "daemon.log"
    begun = log.stat().st_size if log.exists() else 0
    servers = rpc.servers()
    sockets = [server.listener.socket.fileno() for server in servers] + mesh.supervisor.sockets.descriptors()
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    environment = {
        **_AT_START,
        inherited.OURS: ",".join(map(str, sockets)),
        VARIABLE: f"{os.getpid()}:{write}",
    }
    try:
        child = _start([executable, *NSM, *sys.argv[1:]], environment, [*sockets, write])
        os.close(write)
        if not await _ready(read, child):
            child.kill()
            child.wait()
            raise Unavailable(
                f"the next daemon did not get ready, and this one goes on: {last_words(log, begun)}",
                remedy=f"see {log}",
            )
    finally:
        os.close(read)
    for server in servers:
        server.listener.pass_on()
    return child.pid


def _start(argv: list[str], environment: dict[str, str], descriptors: list[int]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            pass_fds=descriptors,
            cwd="/",
        )
    except OSError as error:
        os.close(descriptors[-1])
        raise Unavailable(
            f"{argv[0]} cannot be run: {error.strerror}", remedy="check that nsmesh is installed there"
        ) from error


def give_up(pid: int) -> None:
    """End a successor that was prepared, and is not to come; one that is gone is no harm."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def _ready(fd: int, child: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + READY
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while time.monotonic() < end and child.poll() is None:
        if poll.poll(0):
            return os.read(fd, 5) == b"ready"
        await asyncio.sleep(0.01)
    return False
