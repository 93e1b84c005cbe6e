"""A process that has imported all roles and runs none: who is forked from it has nothing to import.

Starting Python and importing a role takes half a second of processor time, a fork some milliseconds. The
fork server is told over a socket (SOCK_SEQPACKET, one JSON object a message, descriptors beside it) what to
start, and tells back which process that is and, later, how it ended. It has no threads, no event loop and no
keys; what it has started goes on without it.

It ends when the other end of its socket does, or, once it was told to stay, when it is told to end: then a
daemon that is killed leaves it, and the next one is forked off it.

``python -m nsmesh.cli.fork_server FD`` serves on a descriptor.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any

from nsmesh import __version__
from nsmesh.cli.job import Job, become, set_title
from nsmesh.core import garbage
from nsmesh.rpc import inherited
from nsmesh.standalone import formats, outliving
from nsmesh.standalone.forking import END, LARGEST, MOST, STAY

PRELOAD = (
    "nsmesh.cli.main",
    "nsmesh.cli.run",
    "nsmesh.chains.processes",
    "nsmesh.chains.roles",
    "nsmesh.chains.registry",
    "nsmesh.chains.nsc",
    "nsmesh.chains.nsc_init",
    "nsmesh.chains.tunnels",
    "nsmesh.chains.uplinks",
    "nsmesh.endpoints.run",
    "nsmesh.endpoints.icmp_responder",
    "nsmesh.endpoints.firewall",
    "nsmesh.endpoints.vpn_gateway",
    "nsmesh.telemetry.running",
    "nsmesh.journal.file",
    "cryptography.x509",
    "importlib.metadata",
    "sqlite3",
)
"""What roles and shipped endpoints are made of."""
PATIENCE = 1.0
"""Seconds that somebody may take who has come for a daemon, before the next one has a turn."""
LOOK = 60.0
"""Seconds between two looks at whether the way to an orphan is still there."""


def preload() -> None:
    """Import what may be run, and let the collector leave it alone: what nobody writes to stays shared."""
    for name in PRELOAD:
        importlib.import_module(name)
    garbage.imported()


class Server:
    """Serves one daemon over ``channel``, and, once that is killed, its next one.

    ``door``: where that one asks; it waits in the backlog for as long as there is a daemon.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel: socket.socket | None = channel
        self._door: socket.socket | None = None
        self._path = ""
        self._code: dict[str, tuple[int, int]] = {}

    def serve(self) -> Job | None:
        """Serve until nobody can come any more; return None then, and in each forked process its job."""
        with contextlib.suppress(PermissionError):  # it has one of its own
            os.setsid()  # a Ctrl-C is for the daemon alone
        preload()
        self._code = code()
        woken, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._greet()
        while source := self._channel or self._door:
            ready, _, _ = select.select([woken, source.fileno()], [], [], LOOK)
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
                self._tell_ends()
            if source.fileno() in ready:
                job = self._daemon_asks(source) if source is self._channel else self._next_daemon(source)
                if job is not None:
                    return job
            if not ready and source is self._door and not os.path.lexists(self._path):
                return None
        return None

    def _greet(self) -> None:
        self._tell({"version": __version__, "writes": formats.writes(), "reads": formats.reads()})

    def _tell(self, message: Mapping[str, object]) -> None:
        """Tell the daemon, where there is one; of one that is gone is heard when it is our turn to listen."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.send(json.dumps(message).encode())

    def _tell_ends(self) -> None:
        """Tell how processes have ended."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                self._tell({"ended": found[0], "code": os.waitstatus_to_exitcode(found[1])})

    def _daemon_asks(self, channel: socket.socket) -> Job | None:
        """Do what the daemon wants; of one that has ended nothing is left but what was told to stay."""
        try:
            data, descriptors, _, _ = socket.recv_fds(channel, LARGEST, MOST)
        except OSError:
            data, descriptors = b"", []
        if not data:
            channel.close()
            self._channel = None
            return None
        wish = json.loads(data)
        if STAY in wish:
            self._stay(wish[STAY])
            return None
        if END in wish:
            self._channel = None
            self._shut()
            return None
        return self._fork(wish, descriptors)

    def _stay(self, path: str) -> None:
        self._shut()
        self._door, self._path = outliving.opened_door(path), path

    def _shut(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None

    def _fork(self, wish: dict[str, Any], descriptors: list[int]) -> Job | None:
        """Fork; in the child return its job, else tell the pid."""
        try:
            pid = os.fork()
        except OSError as error:
            pid = -1
            self._tell({"error": error.strerror})
        if pid == 0:
            return _become(wish, descriptors)
        if pid > 0:
            self._tell({"pid": pid})
        _close(descriptors)
        return None

    def _next_daemon(self, door: socket.socket) -> Job | None:
        """Let one come for a daemon; return its job in the forked process, else serve it from now on.

        Who cannot be served gets no answer, and this ends: a daemon that is started otherwise has its own.
        """
        caller, _ = door.accept()
        with caller:
            caller.settimeout(PATIENCE)
            try:
                data, descriptors, _, _ = socket.recv_fds(caller, LARGEST, MOST)
            except OSError:
                return None
            if not data or not descriptors or _user(caller) != os.geteuid() or _has_left(caller):
                _close(descriptors)
                return None
            wish = json.loads(data)
            if wish["surroundings"] != outliving.surroundings() or not on_disk(self._code):
                self._shut()
                return None
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            pid = os.fork()
            if pid == 0:
                fd = theirs.detach()
                for sock in (caller, door, ours):
                    sock.detach()  # they are closed by number
                wish["environment"][outliving.VARIABLE] = f"{os.getppid()}:{fd}"
                return _become(wish, descriptors, fd)
            theirs.close()
            _close(descriptors)
            self._channel = ours
            self._shut()  # until this one says where the next one asks
            self._greet()
            with contextlib.suppress(OSError):
                caller.send(json.dumps({"pid": pid}).encode())
        return None


def _stamp(path: str) -> tuple[int, int]:
    """Return when a file was changed, and its size; of one that is gone what no other has."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - of a thousand files
    except OSError:
        return -1, -1
    return stat.st_mtime_ns, stat.st_size


def code() -> dict[str, tuple[int, int]]:
    """Return the files that all modules come from, with what tells them from later ones of that name."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return {path: _stamp(path) for path in files if path}


def on_disk(known: Mapping[str, tuple[int, int]]) -> bool:
    """Say whether what was imported is still what an import would find."""
    return all(_stamp(path) == stamp for path, stamp in known.items())


def _user(caller: socket.socket) -> int:
    found: tuple[int, int, int] = struct.unpack(
        "3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    )
    return found[1]


def _has_left(caller: socket.socket) -> bool:
    poll = select.poll()
    poll.register(caller, select.POLLIN)
    return bool(poll.poll(0))  # it has said all that it has to say


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def _become(wish: dict[str, Any], descriptors: list[int], *keep: int) -> Job:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        return become(wish, descriptors, keep)
    except OSError as error:
        sys.stderr.write(f"cannot be started: {error}\n")
        sys.stderr.flush()
        os._exit(1)


def work(channel: socket.socket, title: str) -> None:
    """Serve, and in each forked process do its job. ``title`` is shown as the server's command line."""
    set_title("forks", title)
    inherited.drop_unclaimed()  # they are the daemon's, which may be forking us off
    server = Server(channel)
    job = server.serve()
    if job is not None:
        job.run()


def main() -> None:
    """Serve on the descriptor that is the first argument; the second one is a title, with room behind it."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    work(channel, sys.argv[2].rstrip("-"))


if __name__ == "__main__":
    main()
