"""A socket that listens once all wires of a client are up: whoever holds a pod back until then asks there."""

from __future__ import annotations

import socket

import structlog

from nsmesh.core.errors import Invalid

log = structlog.get_logger()


class UpSocket:
    """An abstract unix socket, which every process of a pod reaches, whoever it runs as. None without a name.

    That it listens is all that it says: nobody accepts, and nothing is read or written.
    """

    def __init__(self, name: str) -> None:
        """Take the name, ``@NAME`` or nothing; raises Invalid for any other."""
        if name and (not name.startswith("@") or len(name.encode()) not in range(2, 109)):
            raise Invalid(
                f"NSM_UP_SOCKET: {name} names no abstract unix socket",
                remedy="write @NAME, or nothing",
            )
        self._name = name
        self._socket: socket.socket | None = None

    def listen(self) -> None:
        """Listen from now on; where somebody else in the pod does, that is said."""
        if not self._name or self._socket is not None:
            return
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            made.bind("\0" + self._name[1:])
            made.listen()
        except OSError as error:
            made.close()
            log.warning("nobody is told that all wires are up", socket=self._name, error=str(error))
        else:
            self._socket = made

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
