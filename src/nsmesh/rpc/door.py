"""Taking connections off a listening socket: some per turn of the loop, none where no descriptor is left."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Protocol

from nsmesh.core.errors import MeshError
from nsmesh.core.logging import of_nobody
from nsmesh.rpc import foreign
from nsmesh.rpc.listener import Listener

AT_ONCE = 64
"""Connections taken per turn of the loop."""

PAUSE = 0.1
"""Seconds without accepting after the process ran out of descriptors."""

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Say(Protocol):
    """Writes a warning, within bounds."""

    def __call__(self, text: str, **values: object) -> None:
        """Log ``text``."""
        ...


class Door:
    """Hands each connection of ``listener`` to ``accepted``, which owns it unless it raises."""

    def __init__(self, listener: Listener, accepted: Callable[[socket.socket], None], say: Say) -> None:
        self._listener = listener
        self._accepted = accepted
        self._say = say
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin to accept."""
        self._pause = None
        # calls begin in the context of the reader of their connection, which is that of this one
        of_nobody().run(self._loop.add_reader, self._listener.socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, _from = self._listener.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                self._say("no descriptors left: not accepting for a moment", error=str(error))
                self._loop.remove_reader(self._listener.socket.fileno())
                self._pause = self._loop.call_later(PAUSE, self.open)
                return
            self._listener.accepts()
            sock.settimeout(0)
            try:
                self._accepted(sock)
            except (OSError, MeshError) as error:  # it went away meanwhile, or we have no certificate yet
                foreign.close_socket(sock)
                self._say("a connection was lost while it was accepted", error=str(error))

    def close(self) -> None:
        """Accept nothing more, and close the listening socket."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.socket.fileno())
        self._listener.close()
