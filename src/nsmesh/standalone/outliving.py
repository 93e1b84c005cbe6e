"""A fork server outlives a daemon that is killed, and the next daemon is forked off it: nothing is imported.

It waits at a socket in the run directory. ``nsm up`` asks there first; where nobody answers, or where the
daemon would become another one than by an exec, it is started as ever.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nsmesh import __version__
from nsmesh.core.process import start_ticks
from nsmesh.standalone.forking import LARGEST, ForkServer
from nsmesh.standalone.processes import NSM, Started

VARIABLE = "NSM_FORK_SERVER"
"""``PID:FD`` in the environment of a daemon: which fork server is its own, and where that hears it."""
ANSWER = 10.0
"""Seconds that a fork may take; who has gone away by then gets none."""
_AT_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_")
"""What the names of variables begin with that count at the start of a program alone."""
_LIMITS = sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})
_STATUS = ("Umask:", "Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:")
"""What the lines of proc(5)'s status begin with that are inherited."""
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def surroundings(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return what a process inherits and cannot be told, as JSON has it.

    Who is forked off another process instead of this one must find the same.
    """
    status = Path("/proc/self/status").read_text()
    return {
        "version": __version__,
        "python": sys.executable,
        "environment": {name: value for name, value in environment.items() if name.startswith(_AT_START)},
        "namespaces": [str(Path(f"/proc/self/ns/{name}").readlink()) for name in _NAMESPACES],
        "root": str(Path("/proc/self/root").readlink()),
        "cgroup": Path("/proc/self/cgroup").read_text(),
        "status": [line for line in status.splitlines() if line.startswith(_STATUS)],
        "oom": Path("/proc/self/oom_score_adj").read_text(),
        "limits": [list(resource.getrlimit(number)) for number in _LIMITS],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": sorted(os.sched_getaffinity(0)),
    }


def forked_daemon(
    door: Path, arguments: Sequence[str], environment: Mapping[str, str], log: int
) -> Started | None:
    """Have ``nsm ARGUMENTS`` forked off the fork server that a killed daemon left; ``log``: for what it says.

    Returns None where there is none, or it is no good for that: it ends then.
    """
    wish = {
        "arguments": list(arguments),
        "name": "daemon",
        "title": " ".join([sys.executable, *NSM, *arguments]),
        "environment": dict(environment),
        "directory": "",
        "netns": False,
        "surroundings": surroundings(environment),
    }
    data = json.dumps(wish).encode()
    if len(data) > LARGEST:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        channel.settimeout(ANSWER)
        try:
            channel.connect(str(door))
            socket.send_fds(channel, [data], [log])
            answer = json.loads(channel.recv(LARGEST) or b"{}")
        except (OSError, ValueError):
            return None
    pid = answer.get("pid", 0)
    return Started(pid, start_ticks(pid) or 0) if pid else None


def given(environment: MutableMapping[str, str]) -> ForkServer | None:
    """Return the fork server that this daemon was forked off, None where it was started otherwise."""
    pid, _, fd = environment.pop(VARIABLE, "").partition(":")
    if not fd:
        return None
    os.set_inheritable(int(fd), False)  # noqa: FBT003 - its face
    return ForkServer(socket.socket(fileno=int(fd)), int(pid))


def opened_door(path: str) -> socket.socket | None:
    """Listen for the next daemon, as its own user alone; None where that cannot be."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - text, as the socket takes it
        before = os.umask(0o177)
        try:
            door.bind(path)
        finally:
            os.umask(before)
        door.listen()
    except OSError:
        door.close()
        return None
    return door
