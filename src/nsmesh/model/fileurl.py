"""URLs that name files in messages: by path within one process, by inode where a descriptor travels along."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from nsmesh.model.messages import Mechanism, NetworkServiceRequest

INODE_URL = "inodeURL"
"""Mechanism parameter with such a URL: the network namespace of one side, or a socket's file."""

Inode = tuple[int, int]
"""Device and inode number of a file."""

_READERS_OWN = ("/proc/self/", "/proc/thread-self/")


def inode_url(dev: int, ino: int) -> str:
    """Return the URL by which a message names a descriptor that travels beside it."""
    return f"inode://{dev}/{ino}"


def inode_of(url: str) -> Inode | None:
    """Return what ``inode://DEV/INO`` names, None for a URL of another scheme; raises ValueError."""
    scheme, _, rest = url.partition("://")
    if scheme != "inode":
        return None
    dev, _, ino = rest.partition("/")
    if not all(text.isascii() and text.isdecimal() and len(text) <= 20 for text in (dev, ino)):
        raise ValueError(f"{url!r} is not of the form inode://DEV/INO")
    return int(dev), int(ino)


def file_path(url: str) -> str | None:
    """Return the path in ``file:///PATH``, None for any other URL."""
    if not url.startswith("file:///"):
        return None
    return unquote(urlsplit(url).path)


def file_url(path: str) -> str:
    """Return ``file://`` and a path that needs no escapes."""
    return f"file://{path}"


def socket_path(url: str) -> str | None:
    """Return the path of the socket's file in ``unix:///PATH``, None where there is no file."""
    path = url.removeprefix("unix:")
    if path == url:
        return None
    path = path.removeprefix("//")
    return path if path.startswith("/") else None


def socket_url(path: str) -> str:
    """Return ``unix://`` and a path."""
    return f"unix://{path}"


GONE = "unix:///proc/0/fd/0"
"""Stands for a socket whose descriptor went with the process that held it: nobody listens there, ever."""


def after_restart(url: str) -> str:
    """Return what a URL that an earlier process has written down means now.

    Numbers of processes and descriptors begin anew with a pod: the same path may lead to somebody else.
    """
    return GONE if is_passing(url) else url


def is_passing(url: str) -> bool:
    """Whether a URL leads to a descriptor of some process, and ends with it."""
    return url.startswith("unix:///proc/")


def means_its_reader(path: str) -> bool:
    """Whether a path leads each process that opens it to something of its own."""
    return posixpath.normpath(path).startswith(_READERS_OWN)


def naming(request: NetworkServiceRequest) -> Iterator[Mechanism]:
    """Yield those of a Request's preferences, and of its agreed mechanism, that name a file."""
    for preference in request.mechanism_preferences:
        if preference.parameters.get(INODE_URL):
            yield preference
    connection = request.connection
    if connection.HasField("mechanism") and connection.mechanism.parameters.get(INODE_URL):
        yield connection.mechanism
