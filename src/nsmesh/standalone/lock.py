"""Who lives: a lock on a file that is gone with its process, whatever kills it."""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from nsmesh.core.errors import Conflict
from nsmesh.core.process import start_ticks
from nsmesh.standalone.paths import MeshPaths

_TRIES = 250
_PAUSE = 0.02
"""Seconds between two tries: who only looks holds the lock for a moment; a killed process, while a thread
of it is in the kernel, deleting an interface."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The daemon that holds a lock."""

    pid: int
    mesh: str


def holder(path: Path) -> Holder | None:
    """Return who holds the lock at ``path``, or None; the end of a killed one is waited for (5 s)."""
    found: Holder | None = None
    for _ in range(_TRIES):
        found = _holder_now(path)
        if found is None or found.pid == 0 or start_ticks(found.pid) is not None:
            return found
        time.sleep(_PAUSE)
    return found


def _holder_now(path: Path) -> Holder | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(fd)
    else:
        return None
    finally:
        os.close(fd)


def daemon_pid(paths: MeshPaths) -> int | None:
    """Return the pid of the living daemon of this mesh, or None."""
    found = holder(paths.lock)
    return found.pid if found is not None else None


def _read(fd: int) -> Holder:
    pid, _, mesh = os.pread(fd, 64, 0).decode(errors="replace").strip().partition(" ")
    return Holder(int(pid) if pid.isdigit() else 0, mesh)


class Lock:
    """One lock file, taken for a mesh by this process."""

    def __init__(self, path: Path, mesh: str) -> None:
        self.path = path
        self.mesh = mesh
        self._fd = -1

    def take(self) -> Holder | None:
        """Take the lock; return None, or who has it."""
        found: Holder | None = None
        for _ in range(_TRIES):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found = _read(fd)
                os.close(fd)
                if found.pid and start_ticks(found.pid) is not None:
                    return found
                time.sleep(_PAUSE)  # somebody looks, or was just about to write its pid
                continue
            if self._is_current(fd):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()} {self.mesh}\n".encode(), 0)
                self._fd = fd
                return None
            os.close(fd)  # it was removed between our two steps: lock the new one
        return found or Holder(0, "")

    def _is_current(self, fd: int) -> bool:
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(fd)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    @property
    def holds(self) -> bool:
        """Whether we have the lock, and its file is there still."""
        return self._fd >= 0 and self._is_current(self._fd)

    def release(self) -> None:
        """Let go; again is no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class MeshLock:
    """Both locks of a mesh: run and state directory are its own while it lives."""

    def __init__(self, paths: MeshPaths) -> None:
        self._paths = paths
        self._locks = (Lock(paths.lock, paths.mesh), Lock(paths.state_lock, paths.mesh))

    def take(self) -> None:
        """Take both; raises Conflict with whoever has one of them."""
        run, state = self._locks
        found = run.take()
        if found is not None:
            raise conflict(self._paths, found)
        found = state.take()
        if found is not None:
            run.release()
            raise Conflict(
                f"the state directory {self._paths.state} belongs to the mesh {found.mesh} (pid {found.pid})",
                remedy="choose another one with --state-dir",
            )

    def release(self) -> None:
        """Let both go."""
        for lock in self._locks:
            lock.release()


def conflict(paths: MeshPaths, found: Holder) -> Conflict:
    """Return what is wrong where ``found`` has the run directory that this mesh wants."""
    if found.mesh not in {"", paths.mesh}:
        return Conflict(
            f"the run directory {paths.run} belongs to the mesh {found.mesh} (pid {found.pid})",
            remedy="choose another one with --run-dir",
        )
    return Conflict(
        f"the mesh {paths.mesh} is up already (pid {found.pid})",
        remedy=f"use it, or stop it with: nsm --mesh {paths.mesh} down",
    )
