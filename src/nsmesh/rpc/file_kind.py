"""What a received descriptor leads to, found out without waiting for anybody.

To open a pipe or a device can block, or act; to ask a file system for the latest can take as long as its
owner wants. So it is asked for what the kernel has in memory, and only namespaces are opened.
"""

from __future__ import annotations

import fcntl
import functools
import os
import stat
from pathlib import Path

from nsmesh.rpc import foreign

NAMESPACE = "a network namespace"
SOCKET = "a socket"

NS_GET_NSTYPE = 0xB703
CLONE_NEWNET = 0x40000000

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


def kind_of(fd: int) -> str:
    """Return what ``fd`` (``O_PATH`` is enough) leads to, in words: :data:`NAMESPACE`, ``a pipe``, ..."""
    try:
        status = foreign.status_of(fd)
    except OSError:
        return "no file"
    if status.dev != _nsfs() or not stat.S_ISREG(status.mode):
        return _KINDS.get(stat.S_IFMT(status.mode), "no file")
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
