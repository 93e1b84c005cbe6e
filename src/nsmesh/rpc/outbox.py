"""What waits to go out on a socket: bytes, and descriptors that travel with the next of them."""

from __future__ import annotations

import array
import os
import socket
from collections import deque

from nsmesh.core.errors import Exhausted, Invalid, NotFound, Unauthorized
from nsmesh.model.fileurl import inode_url

MOST_PENDING = 1024
"""Descriptors that may wait on one connection."""


class Outbox:
    """Writes to one non-blocking socket. ``where`` names its other side in errors."""

    def __init__(self, sock: socket.socket, where: str) -> None:
        self._socket = sock
        self._where = where
        self._bytes = bytearray()
        self._descriptors: deque[int] = deque()

    def __len__(self) -> int:
        """Return how many bytes wait."""
        return len(self._bytes)

    def add_descriptor(self, path: str) -> str:
        """Queue a descriptor of the file at ``path``, links followed; return its ``inode://`` URL.

        Raises Invalid where the socket is not a unix one, NotFound, Unauthorized, Exhausted.
        """
        if self._socket.family != socket.AF_UNIX:
            raise Invalid(
                f"a descriptor of {path} cannot go to {self._where}: only unix sockets carry descriptors",
                remedy="use a unix socket for this hop",
            )
        if len(self._descriptors) >= MOST_PENDING:
            raise Exhausted(
                f"{len(self._descriptors)} descriptors already wait for {self._where}",
                remedy="wait for its answers",
            )
        try:
            number = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(
                f"there is no file {path} to pass on", remedy="check that its owner lives"
            ) from error
        except OSError as error:
            raise Unauthorized(f"cannot open {path} to pass it on: {error.strerror}") from error
        self._descriptors.append(number)
        found = os.fstat(number)
        return inode_url(found.st_dev, found.st_ino)

    def send(self, data: bytes) -> int:
        """Send ``data``, or keep what does not go; return how many bytes are left. Raises OSError."""
        if self._bytes:
            self._bytes += data
            return len(self._bytes)
        sent = self._push(data)
        if sent == len(data):
            return 0
        self._bytes += memoryview(data)[sent:]
        return len(self._bytes)

    def resume(self) -> int:
        """Send what was kept; return how many bytes are left. Raises OSError."""
        del self._bytes[: self._push(self._bytes)]
        return len(self._bytes)

    def _push(self, data: bytes | bytearray) -> int:
        """Give the socket what it takes, and return how much that was."""
        if self._descriptors:
            return self._push_with_descriptors(data)
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    def _push_with_descriptors(self, data: bytes | bytearray) -> int:
        """Do the same; a waiting descriptor goes with what follows: the reader wakes once.

        Of several all but the last go with one byte each, since one read takes one of them. There may be as
        many as there are bytes.
        """
        sent = 0
        try:
            with memoryview(data) as view:
                while self._descriptors and sent < len(view) - 1:
                    last = len(self._descriptors) == 1
                    rights = array.array("i", [self._descriptors[0]])
                    with view[sent:] if last else view[sent : sent + 1] as part:
                        sent += self._socket.sendmsg([part], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                    os.close(self._descriptors.popleft())
                if sent < len(view):
                    with view[sent:] as left:
                        sent += self._socket.send(left)
        except BlockingIOError:
            pass
        return sent

    def clear(self) -> None:
        """Drop the bytes."""
        self._bytes.clear()

    def drop_descriptors(self) -> None:
        """Close what was not sent."""
        while self._descriptors:
            os.close(self._descriptors.popleft())
