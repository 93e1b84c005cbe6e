"""Descriptors that strangers sent: looked at and closed without waiting for anybody.

A descriptor is a hand on somebody else's file. ``fstat`` of a file in a user's own file system asks that
user; ``close`` of a socket that lingers, or of such a file, waits for its other side, for ever where that
side wants it. Nothing of the kind may happen in the one thread that serves everybody:

* only what cannot wait is kept: ``O_PATH`` descriptors, which is what peers send, and namespaces;
* inode numbers are read from what the kernel knows already;
* everything else is closed by threads of their own, also when it is still unread in a socket that is closed.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import queue
import socket
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

AT_ONCE = 253
"""Descriptors the kernel passes in one message (SCM_MAX_FD): those without room it would close itself."""
ROOM = socket.CMSG_SPACE(AT_ONCE * 4)
THREADS = 16
"""Threads that close at a time; each may wait for somebody hostile."""

_DRAINED = 65536
_O_PATH = 0o10000000
_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC = 0x1000, 0x4000
_STATX_TYPE, _STATX_INO = 0x1, 0x100
_Statx = ctypes.c_char * 256
_STATX = struct.Struct("=28xH2xQ96xII")
"""``stx_mode``, ``stx_ino``, ``stx_dev_major`` and ``stx_dev_minor`` of a ``struct statx``."""
_NO_LINGER = struct.pack("ii", 0, 0)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Status:
    """What the kernel has in memory of a file: its mode, device and inode, numbered as ``fstat`` does."""

    mode: int
    dev: int
    ino: int


def status_of(fd: int) -> Status:
    """Return what ``fd`` leads to, without asking whoever serves its file system; raises OSError."""
    found = _Statx()
    try:
        statx = _libc.statx
    except AttributeError:  # an old C library
        status = os.fstat(fd)
        return Status(status.st_mode, status.st_dev, status.st_ino)
    if statx(fd, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, _STATX_TYPE | _STATX_INO, found):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    mode, inode, major, minor = _STATX.unpack_from(found)
    return Status(mode, os.makedev(major, minor), inode)


def inode_of(fd: int) -> tuple[int, int]:
    """Return device and inode of what ``fd`` leads to; raises OSError."""
    status = status_of(fd)
    return status.dev, status.ino


def harmless(fd: int) -> bool:
    """Whether ``fd`` can be kept and closed without waiting: opened by ``O_PATH``, or a network namespace."""
    if fcntl.fcntl(fd, fcntl.F_GETFL) & _O_PATH:
        return True
    return str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("net:[")


class _Closer:
    """Threads that close what may wait. They end when there is nothing to close."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._waiting = 0

    def put(self, fd: int) -> None:
        self._queue.put(fd)
        with self._lock:
            self._waiting += 1
            if self._threads >= THREADS:
                return
            self._threads += 1
        threading.Thread(target=self._work, name="close descriptors", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                self._waiting -= 1
            os.close(self._queue.get())


_closer = _Closer()


def discard(fd: int) -> None:
    """Close ``fd``, soon, without waiting for whoever is behind it."""
    known = False
    with contextlib.suppress(OSError):
        known = harmless(fd)
    if known:
        os.close(fd)
        return
    with contextlib.suppress(OSError):  # no socket
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd)  # its family does not matter here
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        finally:
            one.detach()
    _closer.put(fd)


def numbers_in(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with one read."""
    found = array.array("i")
    for level, kind, body in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(body[: len(body) - len(body) % found.itemsize])
    return list(found)


def close_socket(sock: socket.socket) -> None:
    """Close a non-blocking socket, and what strangers have sent on it that nobody has read."""
    if sock.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):  # its peer has gone; what it sent is still there
            sock.shutdown(socket.SHUT_RDWR)  # or they could send more meanwhile
        while True:
            try:
                data, ancillary, _, _ = sock.recvmsg(_DRAINED, ROOM, socket.MSG_CMSG_CLOEXEC)
            except OSError:
                break
            for number in numbers_in(ancillary):
                discard(number)
            if not data and not ancillary:
                break
    sock.close()
