"""The listening socket of one server: passed to it, or its own, with its file."""

from __future__ import annotations

from pathlib import Path

from nsmesh.rpc import address, inherited, listening


class Listener:
    """Listens at ``url`` from its construction until :meth:`close`; raises as :func:`listening.listen`.

    A socket that somebody else opened for this process and holds stays open with him, and so does its file.
    """

    def __init__(self, url: str, mode: int) -> None:
        self._address = address.parse(url)
        passed = inherited.claim(self._address)
        self._stays = passed is not None
        if passed is not None:
            passed.listen(listening.BACKLOG)  # again: from now on the kernel tells clients of us as the peer
        self.socket = passed or listening.listen(self._address, mode)
        self.url = listening.listening_url(self._address, self.socket)
        self._inode = self._own_inode()

    def pass_on(self) -> int:
        """Return the descriptor, for a successor that goes on at this address: the file stays for it."""
        self._stays = True
        return self.socket.fileno()

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
