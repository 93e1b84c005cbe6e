"""Sockets of user-space wires as mechanisms name them: which names can be used, and by which path."""

from __future__ import annotations

import hashlib
import posixpath

from nsmesh.model.fileurl import INODE_URL, file_path
from nsmesh.model.messages import Mechanism

SOCKET_FILE = "socketfile"
"""Mechanism parameter: the socket, a path or, behind ``@``, a name in a network namespace."""
PATH_LIMIT = 107
"""Bytes that the kernel leaves for the name of a unix socket, after the one that ends it."""


def socket_problem(name: str) -> str:
    """Return what is wrong with a socket's path or ``@NAME``; empty: nothing."""
    size = len(name.encode(errors="surrogateescape"))
    if size > PATH_LIMIT:
        return f"the socket's name {name[:40]}... has {size} bytes, and the kernel takes at most {PATH_LIMIT}"
    if "\0" in name or "\n" in name or "," in name:
        return f"the socket's name {name!r} has a character that no socket here may have"
    if name.startswith("@"):
        return "" if len(name) > 1 else "the socket's name is empty behind its @"
    if not posixpath.isabs(name):
        return f"the socket's name {name!r} is neither an absolute path nor a name behind @"
    return ""


def short_name(connection_id: str) -> str:
    """Return a file's name for a connection's socket: the same each time, of 20 characters."""
    return hashlib.sha256(connection_id.encode()).hexdigest()[:20]


def socket_of(mechanism: Mechanism) -> str:
    """Return by what the socket of a mechanism can be reached: ``@NAME``, or a path; empty where none is.

    A file is reached by ``inodeURL`` alone: its descriptor came along, or it is this side's own. A bare
    ``socketfile`` is somebody else's word for a file in a file system of their own, and whoever wires may
    open more than they: it is not followed.
    """
    name = mechanism.parameters.get(SOCKET_FILE, "")
    if name.startswith("@"):
        return name
    return file_path(mechanism.parameters.get(INODE_URL, "")) or "" if name else ""


def unreachable(mechanism: Mechanism) -> str:
    """Return what is wrong with a mechanism whose socket cannot be reached, as the end of a sentence."""
    name = mechanism.parameters.get(SOCKET_FILE, "")
    if not name:
        return "names no socket"
    return f"names the socket {name[:60]!r} by its path alone: its descriptor has to come along (inodeURL)"
