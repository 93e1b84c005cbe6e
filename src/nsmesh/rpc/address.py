"""Where a server listens or a client dials: URLs of unix and tcp sockets."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from nsmesh.core.errors import Invalid

LONGEST_PATH = 107
"""Bytes of a path that fit into ``sockaddr_un.sun_path`` with its end mark."""

STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
"""Type of every socket here."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL: ``path`` of a unix socket (with a zero byte first where abstract), or host and port."""

    url: str
    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def unix(self) -> bool:
        """Whether it is a unix socket: only there descriptors and credentials travel."""
        return bool(self.path)

    @property
    def abstract(self) -> bool:
        """Whether it is a unix socket without a file."""
        return self.path.startswith("\0")


def parse(url: str) -> Address:
    """Return the address that ``url`` names; raises Invalid.

    ``unix:///path``, ``unix:path``, ``unix://@abstract``, ``tcp://host:port``, ``host:port``,
    ``tcp://[::1]:port``.
    """
    for prefix in ("unix://", "unix:"):
        if url.startswith(prefix):
            path = url[len(prefix) :]
            if path in {"", "@"}:
                raise Invalid(f"the address {url!r} names no socket", remedy="write unix:///path/to/socket")
            return Address(url, path="\0" + path[1:] if path.startswith("@") else path)
    if url.startswith("inode://"):
        raise Invalid(
            f"the descriptor of the socket {url} did not arrive",
            remedy="descriptors travel over unix sockets only: check the hop that this address came by",
        )
    host, colon, port = url.removeprefix("tcp://").rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or "/" in host:
        raise Invalid(
            f"the address {url!r} is neither a unix socket nor a host with a port",
            remedy="write unix:///path/to/socket or tcp://host:port",
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise Invalid(f"the address {url!r} has a bare IPv6 host", remedy="write tcp://[host]:port")
    return Address(url, host=host, port=int(port))


def _encoded(path: str) -> bytes:
    """Return the bytes of a path, as the kernel takes them."""
    return os.fsencode(path)


@contextlib.contextmanager
def short(path: str, *, parent: bool) -> Iterator[str]:
    """Give a path to the same file that fits into a socket address, while the block runs.

    ``parent``: go through the folder, because the file is not there yet.
    """
    if path.startswith("\0") or len(_encoded(path)) <= LONGEST_PATH:
        yield path
        return
    folder, name = os.path.split(path)
    handle = os.open((folder or ".") if parent else path, os.O_PATH | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{handle}" + (f"/{name}" if parent else "")
        if len(_encoded(short)) > LONGEST_PATH:
            raise Invalid(
                f"the socket name {name!r} has {len(_encoded(name))} bytes, too many for a socket address",
                remedy="choose a name below 80 bytes",
            )
        yield short
    finally:
        os.close(handle)
