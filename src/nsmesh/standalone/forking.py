"""The daemon's side of a fork server: starts it, has processes started by it, hears how they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from nsmesh.core.errors import Unavailable
from nsmesh.core.process import start_ticks
from nsmesh.datapath import netns
from nsmesh.standalone.formats import Formats
from nsmesh.standalone.processes import Command, Started

log = structlog.get_logger()

ANSWER = 5.0
"""Seconds that a fork may take."""
HEARD = 1.0
"""Seconds after the end of a process within which is known how it ended."""
MODULE = "nsmesh.cli.fork_server"
LARGEST = 128 << 10
"""Bytes of a message at the most."""
MOST = 32
"""Descriptors beside a message at the most."""
STAY, END = "stay", "end"
"""What a message is that starts nothing: stay when we are killed, and be asked at this path; end."""


class ForkServer:
    """A fork server that was started: by :func:`forked`, :func:`spawned`. Ready once ``version`` is known.

    ``writes`` and ``reads``: which versions of the files that outlive a process.
    ``ready`` is set when it is, or when it is gone (``gone``) before.
    """

    def __init__(
        self, channel: socket.socket, pid: int, child: subprocess.Popen[bytes] | None = None
    ) -> None:
        self._channel = channel
        self._child = child
        self._loop: asyncio.AbstractEventLoop | None = None
        self._codes: dict[int, int] = {}
        self._waiting: dict[int, Callable[[int | None], None]] = {}
        self._answers: list[dict[str, Any]] = []
        self.pid = pid
        self.version = ""
        self.writes: Formats = {}
        self.reads: dict[str, list[int]] = {}
        self.gone = False
        self.ready = asyncio.Event()
        self.on_gone: Callable[[], None] = lambda: None

    def follow(self) -> None:
        """Begin to hear; call it in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._channel.fileno(), self._hear)

    def start(self, command: Command, name: str, title: str, listen: Sequence[int] = ()) -> Started:
        """Have a command of ours started; ``listen``: sockets for it. It takes some milliseconds.

        Raises Unavailable where the fork server cannot, and what :func:`netns.open_netns` raises.
        """
        wish = {
            "arguments": list(command.own),
            "name": name,
            "title": title,
            "environment": {**os.environ, **command.environment},
            "directory": command.directory,
            "netns": bool(command.netns),
        }
        with contextlib.ExitStack() as stack:
            descriptors = [stack.enter_context(command.log.open("ab")).fileno()]
            if command.netns:
                space = netns.open_netns(command.netns)
                stack.callback(os.close, space)
                descriptors.append(space)
            answer = self._ask(json.dumps(wish).encode(), [*descriptors, *listen])
        self._codes.pop(answer.get("pid", 0), None)  # of an earlier one that had that pid
        if "pid" not in answer:
            raise Unavailable(f"the fork server cannot start a process: {answer.get('error')}")
        return Started(answer["pid"], start_ticks(answer["pid"]) or 0)

    def _ask(self, message: bytes, descriptors: list[int]) -> dict[str, Any]:
        if self.gone or not self.version or len(message) > LARGEST:
            raise Unavailable("there is no fork server, or this is too much for it")
        try:
            socket.send_fds(self._channel, [message], descriptors)
        except OSError as error:
            raise Unavailable(f"the fork server does not listen: {error}") from error
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while not self._answers:
            if not poll.poll(ANSWER * 1e3):
                raise Unavailable(f"the fork server (pid {self.pid}) did not answer within {ANSWER:g} s")
            self._hear()
            if self.gone:
                raise Unavailable("the fork server has died")
        return self._answers.pop(0)

    def stay(self, path: Path) -> None:
        """Let it stay when this process is killed, and be asked for the next one at ``path``."""
        self._say({STAY: str(path)})

    def _say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it is gone, which is heard in time
            self._channel.send(json.dumps(message).encode())

    def end_of(self, process: Started, tell: Callable[[int | None], None]) -> None:
        """Call ``tell`` with the exit code of a process (negative: a signal), None where nobody knows it."""
        if process.pid in self._codes or self.gone or self._loop is None:
            tell(self._codes.pop(process.pid, None))
            return
        self._waiting[process.pid] = tell
        self._loop.call_later(HEARD, self._tell, process.pid, None)

    def _tell(self, pid: int, code: int | None) -> None:
        tell = self._waiting.pop(pid, None)
        if tell is not None:
            tell(code)

    def _hear(self) -> None:
        """Take what there is."""
        while not self.gone:
            try:
                data = self._channel.recv(LARGEST, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._over()
                return
            message = json.loads(data)
            if "ended" in message:
                pid, code = message["ended"], message["code"]
                if pid in self._waiting:
                    self._tell(pid, code)
                else:
                    self._codes[pid] = code
            elif "version" in message:
                self.version, self.writes = message["version"], message["writes"]
                self.reads = message["reads"]
                self.ready.set()
            else:
                self._answers.append(message)

    def _over(self) -> None:
        self.close()
        log.warning("the fork server is gone", pid=self.pid)
        for pid in list(self._waiting):
            self._tell(pid, None)
        self.on_gone()

    def close(self) -> None:
        """Let it go: it ends, and what it has started goes on. Again is no harm."""
        if self.gone:
            return
        self.gone = True
        if self._loop is not None:
            self._loop.remove_reader(self._channel.fileno())
        self._say({END: True})
        self._channel.close()
        self.ready.set()
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(ANSWER)
        else:
            _wait(self.pid)


def _wait(pid: int) -> None:
    """Wait for the end of a process, whether it is our child or not."""
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(ANSWER * 1e3)
        os.close(fd)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def forked(work: Callable[[socket.socket], None]) -> ForkServer:
    """Fork a fork server off this process, which must have neither threads nor an event loop yet.

    It does ``work`` at its end of the channel. Returns here only: what is forked from it ends by SystemExit.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        return ForkServer(ours, pid)
    ours.close()
    work(theirs)
    os._exit(0)  # nothing is to be tidied up, and the daemon waits


def spawned(output: Path, title: str, executable: str = sys.executable) -> ForkServer:
    """Start a fork server by another Python, or this one; what it says goes to ``output``.

    ``title``: what the titles of all that it starts begin with.

    Raises Unavailable where that cannot be run.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, output.open("ab") as out:
        number = str(theirs.fileno())
        try:
            child = subprocess.Popen(
                [executable, "-m", MODULE, number, f"{title} fork-server{'-' * 100}"],  # room for longer ones
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=[theirs.fileno()],
                cwd="/",
            )
        except OSError as error:
            ours.close()
            raise Unavailable(
                f"{executable} cannot be run: {error.strerror}", remedy="check that nsmesh is installed there"
            ) from error
    return ForkServer(ours, child.pid, child)
