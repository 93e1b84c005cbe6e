"""What a received descriptor leads to, found out without waiting for anybody.

To open a pipe or a device can block, or act; to ask a file system for the latest can take as long as its
owner wants. So it is asked for what the kernel has in memory, and only namespaces are opened.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import stat
import struct
from pathlib import Path

NAMESPACE = "a network namespace"
SOCKET = "a socket"

NS_GET_NSTYPE = 0xB703
CLONE_NEWNET = 0x40000000

_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC, _STATX_TYPE = 0x1000, 0x4000, 0x1
_STATX_SIZE, _MODE_AT, _DEV_AT = 256, 28, 136
_libc = ctypes.CDLL(None, use_errno=True)

_KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: SOCKET,
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFLNK: "a symbolic link",
}


@functools.cache
def _nsfs() -> int:
    """Return the device of the kernel's file system of namespaces."""
    return Path("/proc/self/ns/net").stat().st_dev


def _known(fd: int) -> tuple[int, int]:
    """Return mode and device as the kernel has them in memory: neither the type nor the device changes."""
    found = ctypes.create_string_buffer(_STATX_SIZE)
    try:
        statx = _libc.statx
    except AttributeError:  # an old C library
        status = os.fstat(fd)
        return status.st_mode, status.st_dev
    if statx(fd, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, _STATX_TYPE, found):
        return 0, 0
    (mode,) = struct.unpack_from("H", found.raw, _MODE_AT)
    return mode, os.makedev(*struct.unpack_from("II", found.raw, _DEV_AT))


def kind_of(fd: int) -> str:
    """Return what ``fd`` (``O_PATH`` is enough) leads to, in words: :data:`NAMESPACE`, ``a pipe``, ..."""
    mode, dev = _known(fd)
    if dev != _nsfs() or not stat.S_ISREG(mode):
        return _KINDS.get(stat.S_IFMT(mode), "no file")
    try:
        opened = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "a namespace that cannot be opened"
    try:
        return NAMESPACE if fcntl.ioctl(opened, NS_GET_NSTYPE) == CLONE_NEWNET else "another namespace"
    except OSError:
        return "no namespace"  # nsfs also holds the descriptors of processes
    finally:
        os.close(opened)
