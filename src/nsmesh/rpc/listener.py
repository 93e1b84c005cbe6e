"""The listening socket of one server: passed to it, or its own, with its file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nsmesh.rpc import address, inherited, listening, sockets


def leave(listeners: Sequence[Listener]) -> None:
    """Let clients know that who listened on these sockets is gone, and that a successor is to come.

    Of a unix socket the kernel tells who called listen(2) last. Let that be a process that is dead at once:
    who dials while nobody accepts finds out that waiting is worth it (:func:`dialing.is_awaited`).
    """
    left = [listener.socket for listener in listeners if listener.passes_on]
    if not left:
        return
    pid = os.fork()
    if not pid:
        for sock in left:
            sock.listen(listening.BACKLOG)
        os._exit(0)
    os.waitpid(pid, 0)


class Listener:
    """Listens at ``url`` from its construction until :meth:`close`; raises as :func:`listening.listen`.

    A socket that somebody else opened for this process and holds stays open with him, and so does its file.
    """

    def __init__(self, url: str, mode: int) -> None:
        self._address = address.parse(url)
        passed = inherited.claim(self._address)
        self._stays = passed is not None
        self._unix = self._address.unix
        self.socket = passed or listening.listen(self._address, mode)
        self._unknown = passed is not None
        if passed is not None and not sockets.is_left(passed):
            self.accepts()
        self.url = listening.listening_url(self._address, self.socket)
        self._inode = self._own_inode()

    def pass_on(self) -> int:
        """Return the descriptor, for a successor that goes on at this address: the file stays for it."""
        self._stays = True
        return self.socket.fileno()

    def accepts(self) -> None:
        """Be known as who listens: the kernel tells clients who called listen(2) last.

        Where a predecessor is dead, this comes with the first connection that is taken: until then those who
        dial know that somebody is to come.
        """
        if self._unknown:
            self._unknown = False
            self.socket.listen(listening.BACKLOG)

    @property
    def passes_on(self) -> bool:
        """Whether somebody listens here after us."""
        return self._stays and self._unix

    def close(self) -> None:
        """Listen no more."""
        # not where the file is that of a successor, either
        if not self._stays and self._inode is not None and self._inode == self._own_inode():
            Path(self._address.path).unlink()
        self.socket.close()

    def _own_inode(self) -> tuple[int, int] | None:
        """Return device and inode of the socket's file, or None where there is none."""
        if not self._address.unix or self._address.abstract:
            return None
        try:
            found = Path(self._address.path).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino
