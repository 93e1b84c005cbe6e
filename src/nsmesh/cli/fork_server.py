"""A process that has imported all roles and runs none: who is forked from it has nothing to import.

Starting Python and importing a role takes half a second of processor time, a fork some milliseconds. The
fork server is told over a socket (SOCK_SEQPACKET, one JSON object a message, descriptors beside it) what to
start, and tells back which process that is and, later, how it ended. It has no threads, no event loop, no
keys, and it ends when the other end of its socket does; what it has started goes on.

``python -m nsmesh.cli.fork_server FD`` serves on a descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nsmesh import __version__
from nsmesh.rpc import inherited
from nsmesh.standalone import formats
from nsmesh.standalone.forking import LARGEST, MOST

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
_PR_SET_NAME = 15


@dataclass(frozen=True, slots=True)
class Job:
    """What a forked process does: ``nsm`` with ``arguments``. ``listen``: sockets that are passed to it."""

    arguments: Sequence[str]
    name: str
    title: str
    environment: Mapping[str, str]
    listen: Sequence[int]

    def run(self) -> None:
        """Do it; raises SystemExit at its end."""
        os.environ.clear()
        os.environ.update(self.environment)
        set_title(self.name, self.title)
        from nsmesh.cli.main import main  # noqa: PLC0415 - who forks can do without

        inherited.take(self.listen)
        main(list(self.arguments))


def preload() -> None:
    """Import what may be run, and let the collector leave it alone: what nobody writes to stays shared."""
    for name in PRELOAD:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def serve(channel: socket.socket) -> Job | None:
    """Serve until the other side is gone; return None then, and in each forked process what it shall do."""
    with contextlib.suppress(PermissionError):  # it has one of its own
        os.setsid()  # a Ctrl-C is for the daemon alone
    preload()
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    _send(channel, {"version": __version__, "writes": formats.writes(), "reads": formats.reads()})
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(read, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(read, 4096)
            if not _tell_ends(channel):
                return None
        if channel.fileno() in ready:
            data, descriptors, _, _ = socket.recv_fds(channel, LARGEST, MOST)
            if not data:
                return None
            job = _fork(channel, json.loads(data), descriptors)
            if job is not None:
                return job


def _send(channel: socket.socket, message: Mapping[str, object]) -> bool:
    """Send; return whether anybody is there."""
    try:
        channel.send(json.dumps(message).encode())
    except OSError:
        return False
    return True


def _tell_ends(channel: socket.socket) -> bool:
    """Tell how processes have ended; return whether anybody heard it."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if not pid:
            return True
        if not _send(channel, {"ended": pid, "code": os.waitstatus_to_exitcode(status)}):
            return False


def _fork(channel: socket.socket, wish: dict[str, object], descriptors: list[int]) -> Job | None:
    """Fork; in the child return its job, else tell the pid."""
    try:
        pid = os.fork()
    except OSError as error:
        pid = -1
        _send(channel, {"error": error.strerror})
    if pid > 0:
        _send(channel, {"pid": pid})
    if pid != 0:
        for fd in descriptors:
            os.close(fd)
        return None
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        return _become(wish, descriptors)
    except OSError as error:
        sys.stderr.write(f"cannot be started: {error}\n")
        sys.stderr.flush()
        os._exit(1)


def _become(wish: dict[str, object], descriptors: list[int]) -> Job:
    """Leave everything of the fork server behind; raises OSError."""
    log, space, *listen = descriptors if wish["netns"] else [descriptors[0], -1, *descriptors[1:]]
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    if space >= 0:
        from nsmesh.datapath import netns  # noqa: PLC0415 - loaded already

        netns.enter(space)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers are what is wanted
        fd = int(name)
        if fd > 2 and fd not in listen:
            with contextlib.suppress(OSError):  # the one that lists the folder
                os.close(fd)
    os.chdir(str(wish["directory"]) or "/")
    arguments, environment = wish["arguments"], wish["environment"]
    assert isinstance(arguments, list)
    assert isinstance(environment, dict)
    return Job(arguments, str(wish["name"]), str(wish["title"]), environment, listen)


def set_title(name: str, title: str) -> None:
    """Show ``title`` as our command line, cut to the room that the real one had, and ``name`` as our name."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, proc(5) 48 and 49
    room = end - begin
    if room <= 1:
        return
    words = title.encode().replace(b" ", b"\0")[: room - 1]
    ctypes.memmove(begin, words.ljust(room, b"\0"), room)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"nsm:{name}".encode(), 0, 0, 0)  # the kernel cuts it to 15 bytes


def work(channel: socket.socket, title: str) -> None:
    """Serve, and in each forked process do its job. ``title`` is shown as the server's command line."""
    set_title("forks", title)
    inherited.drop_unclaimed()  # they are the daemon's, which may be forking us off
    job = serve(channel)
    if job is not None:
        job.run()


def main() -> None:
    """Serve on the descriptor that is the first argument; the second one is a title, with room behind it."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    work(channel, sys.argv[2].rstrip("-"))


if __name__ == "__main__":
    main()
