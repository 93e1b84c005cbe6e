"""Processes of a mesh: started in a namespace, watched by pidfd, stopped with all that they started."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsmesh.core.errors import Invalid, NotFound, Unauthorized
from nsmesh.core.process import start_ticks
from nsmesh.datapath import netns
from nsmesh.rpc import inherited

NSM = ("-m", "nsmesh.cli.main")
"""What follows the name of Python in a command that runs ``nsm``."""
KILL = 2.0
"""Seconds within which a killed process is gone."""


@dataclass(frozen=True, slots=True)
class Started:
    """One process, told apart from a later one of the same pid by its start time (clock ticks)."""

    pid: int
    ticks: int


def alive(process: Started) -> bool:
    """Say whether this very process still runs."""
    return start_ticks(process.pid) == process.ticks


@dataclass(slots=True)
class Command:
    """What to run. ``netns`` is a path or empty (the daemon's own); output goes to ``log``."""

    argv: Sequence[str]
    log: Path
    netns: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = ""

    @property
    def own(self) -> Sequence[str]:
        """The arguments of ``nsm`` where it is that which is run; else empty."""
        return self.argv[3:] if tuple(self.argv[1:3]) == NSM else ()

    @property
    def digest(self) -> str:
        """What tells it from other commands; where the output goes does not count, nor by which Python."""
        argv = ["nsm", *self.own] if self.own else list(self.argv)
        ours = f"{Path(sys.executable).parent}:"
        environment = {name: value.removeprefix(ours) for name, value in self.environment.items()}
        what = [argv, self.netns, environment, self.directory]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def start(command: Command, listen: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start a command as the leader of its own session; ``listen``: sockets that are passed to it.

    Raises NotFound (program or namespace), Invalid or Unauthorized, each naming the command.
    """
    name = command.argv[0]
    environment = {**os.environ, **command.environment}
    if listen:
        environment[inherited.OURS] = ",".join(map(str, listen))
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(command.log.open("ab"))
        try:
            if command.netns:
                namespace = netns.open_netns(command.netns)
                stack.callback(os.close, namespace)
                # the child is forked by this thread, so it starts in the namespace that the thread is in
                inside: contextlib.AbstractContextManager[None] = netns.inside(namespace)
            else:
                inside = contextlib.nullcontext()
            with inside:
                return subprocess.Popen(
                    command.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd=command.directory or None,
                    start_new_session=True,
                    pass_fds=listen,
                )
        except FileNotFoundError:
            where = f" in {command.directory}" if command.directory else ""
            raise NotFound(
                f"the command {name!r} is not there{where}", remedy="check spec.command and PATH"
            ) from None
        except PermissionError as error:
            raise Unauthorized(f"the command {name!r} cannot be started: {error.strerror}") from None
        except OSError as error:
            raise Invalid(f"the command {name!r} cannot be started: {error}") from error


class Watch:
    """Tells when a process ends, whether or not it is our child."""

    def __init__(self, process: Started, ended: Callable[[], None]) -> None:
        self._fd = os.pidfd_open(process.pid)
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        if not alive(process):
            os.close(self._fd)
            self._fd = -1
            self._loop.call_soon(ended)
            return
        self._loop.add_reader(self._fd, self._fire)

    def _fire(self) -> None:
        self.close()
        self._ended()

    def close(self) -> None:
        """Watch no longer."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def members(process: Started) -> list[int]:
    """Return the pids of the session that a process leads or led, zombies left out.

    A pid is not given out again while a session is called by it, so what is found belongs to ``process``
    unless somebody younger has that very pid.
    """
    leader = start_ticks(process.pid)
    if leader is not None and leader != process.ticks:
        return []
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - bare names are what is wanted
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == process.pid and fields[0] not in {"Z", "X"} and int(fields[19]) >= process.ticks:
            found.append(int(entry))
    return found


def send(process: Started, number: signal.Signals) -> None:
    """Send a signal to a process and everything in its session; one that is gone is left alone."""
    for pid in members(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


async def succeed(process: Started, grace: float = 5.0) -> bool:
    """Ask a process of ours to end for a successor; kill it after ``grace`` seconds and return False then."""
    with contextlib.suppress(ProcessLookupError):
        if alive(process):
            os.kill(process.pid, signal.SIGQUIT)
    ended = not await _outlive([process], grace, alive)
    send(process, signal.SIGKILL)  # what it started ends with it
    await _outlive([process], KILL)
    return ended


async def stop(processes: Sequence[Started], grace: float = 3.0) -> list[Started]:
    """SIGTERM, wait up to ``grace`` seconds, SIGKILL the rest; return those that had to be killed."""
    living = [process for process in processes if members(process)]
    for process in living:
        send(process, signal.SIGTERM)
    living = await _outlive(living, grace)
    for process in living:
        send(process, signal.SIGKILL)
    await _outlive(living, KILL)
    return living


async def stop_each(processes: Sequence[Started], grace: float = 1.0) -> None:
    """SIGTERM, then SIGKILL, to single processes, whatever session they are in."""
    living = list(processes)
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL)):
        for process in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        living = await _outlive(living, patience, alive)


async def _outlive(
    processes: Sequence[Started], seconds: float, there: Callable[[Started], Any] = members
) -> list[Started]:
    """Wait for the end of processes; return those that are still there after ``seconds``."""
    living, pause = list(processes), 0.005
    end = asyncio.get_running_loop().time() + seconds
    while living and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.05)
        living = [process for process in living if there(process)]
    return living


def inside(namespace: str) -> list[Started]:
    """Return the processes that live in the network namespace at a path; none where it is gone."""
    try:
        wanted = netns.identity(namespace)
    except OSError:
        return []
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - bare names are what is wanted
        if not entry.isdigit():
            continue
        try:
            if netns.identity(f"/proc/{entry}/ns/net") != wanted:
                continue
        except OSError:
            continue  # it has ended meanwhile
        ticks = start_ticks(int(entry))
        if ticks is not None:
            found.append(Started(int(entry), ticks))
    return found
