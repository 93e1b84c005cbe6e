"""Pods as the kernel of their node knows them: processes in cgroups, and a network namespace."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Collection
from pathlib import Path
from typing import Self

from nsmesh.core.errors import Unauthorized
from nsmesh.core.process import start_ticks

PROC = Path("/proc")
_UID = re.compile(r"(?<![0-9A-Za-z])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})(?![0-9A-Za-z_-])")


def uid_of_cgroups(text: str) -> str:
    """Return the pod's uid in the lines of ``/proc/PID/cgroup``, or nothing.

    Drivers write it with dashes (cgroupfs) or underscores (systemd). Where lines name more than one pod, the
    process is in none that could be trusted.
    """
    found = {uid.replace("_", "-") for uid in _UID.findall(text)}
    return found.pop() if len(found) == 1 else ""


def uid_of_process(pid: int, proc: Path = PROC) -> str:
    """Return the uid of the pod that a process belongs to; nothing where it is of none, or gone."""
    try:
        return uid_of_cgroups((proc / str(pid) / "cgroup").read_text())
    except OSError:
        return ""


def oldest_processes(uids: Collection[str], proc: Path = PROC) -> dict[str, int]:
    """Return the oldest process of each pod that has one, by the pod's uid.

    It is the one that holds the pod's namespaces: what came later may have made a namespace of its own.
    """
    oldest: dict[str, tuple[int, int]] = {}
    for entry in os.scandir(proc):
        if not entry.name.isdecimal():
            continue
        pid = int(entry.name)
        uid = uid_of_process(pid, proc)
        if uid not in uids:
            continue
        started = start_ticks(pid)
        if started is not None:
            oldest[uid] = min(oldest.get(uid, (started, pid)), (started, pid))
    return {uid: pid for uid, (_, pid) in oldest.items()}


class PodNamespace:
    """The network namespace of a pod, held open; a context manager that lets go of it.

    ``inode`` names the namespace on this node, ``pid`` is the process by which it was found. As long as it is
    held, the namespace does not end: let go once :attr:`ended` says that the process is gone.
    """

    def __init__(self, uid: str, pid: int, *, pidfd: int, netns: int) -> None:
        self.uid = uid
        self.pid = pid
        self.pidfd = pidfd
        self.inode = os.fstat(netns).st_ino
        self._netns = netns

    @classmethod
    def opened(cls, uid: str, pid: int) -> Self | None:
        """Return the namespace of a pod's process; None where the process is gone, or another's by now.

        None too where it is still in the node's: a runtime puts a process into the pod's cgroup first, and
        into its namespaces then. Raises Unauthorized where we may not look.
        """
        files: list[int] = []
        try:
            files.append(os.pidfd_open(pid))
            files.append(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            space = cls(uid, pid, pidfd=files[0], netns=files[1])
            # looked up again while we hold the process: its number may have been given to another meanwhile
            if uid_of_process(pid) == uid and not space.ended and not _is_of_others(space):
                files.clear()
                return space
        except (ProcessLookupError, FileNotFoundError):
            return None
        except PermissionError as error:
            raise Unauthorized(
                f"the network namespace of process {pid} cannot be opened: {error.strerror}",
                remedy="give this process the node's process ids (hostPID) and the capability SYS_PTRACE",
            ) from error
        finally:
            for one in files:
                os.close(one)
        return None

    @property
    def ended(self) -> bool:
        """Whether the process by which it was found is gone."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def has(self, interface: str) -> bool:
        """Whether an interface is there; it is not entered for that."""
        try:
            lines = Path(f"/proc/{self.pid}/net/dev").read_text().splitlines()
        except OSError:
            return False
        return any(line.partition(":")[0].strip() == interface for line in lines)

    @property
    def path(self) -> str:
        """Where any process that may look at ours can open it."""
        return f"/proc/{os.getpid()}/fd/{self._netns}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.pidfd)
        os.close(self._netns)


def _is_of_others(space: PodNamespace) -> bool:
    """Whether a namespace is that of the node, or of a parent outside of the pod, as far as we may look."""
    parent = _parent(space.pid)
    others = (1, parent) if uid_of_process(parent) != space.uid else (1,)
    for pid in others:
        try:
            if Path(f"/proc/{pid}/ns/net").stat().st_ino == space.inode:
                return True
        except (PermissionError, FileNotFoundError):
            continue
    return False


def _parent(pid: int) -> int:
    """Return the number of a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
