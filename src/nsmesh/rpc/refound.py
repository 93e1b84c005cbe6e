"""Sockets that came as descriptors, found again by a later process: where their file has a path that we see.

What is noted of one is only used again where the same file is still there; another one at its path is
somebody else's.
"""

from __future__ import annotations

import os

from nsmesh.model.fileurl import Inode, socket_path, socket_url
from nsmesh.rpc.file_kind import SOCKET
from nsmesh.rpc.files import HELD, Files, Owner


def note_of(url: str) -> str:
    """Return what to note of ``unix:///proc/PID/fd/N``; empty for other URLs and what has no path here."""
    path = socket_path(url) or ""
    if not path.startswith("/proc/"):
        return ""
    try:
        name = os.readlink(path)  # noqa: PTH115 - a text is wanted
        there, here = os.stat(name), os.stat(path)  # noqa: PTH116 - these are texts
    except OSError:
        return ""
    same = (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
    return f"{here.st_dev} {here.st_ino} {name}" if same else ""


def found(note: str, owner: Owner, files: Files = HELD) -> str:
    """Return a URL of the socket that was noted, which is held for ``owner``; empty where it is gone."""
    dev, ino, name = note.split(" ", 2)
    inode: Inode = (int(dev), int(ino))
    try:
        fd = os.open(name, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return ""
    there = os.fstat(fd)
    if (there.st_dev, there.st_ino) != inode:
        os.close(fd)
        return ""
    return socket_url(files.adopt(owner, inode, fd, SOCKET))
