"""Files for somebody: received by inode URL and checked, or opened; held until nobody needs them."""

from __future__ import annotations

import os
from collections.abc import Collection

from nsmesh.core.errors import Exhausted, Invalid
from nsmesh.core.passing import Passing
from nsmesh.model.fileurl import Inode, inode_of, inode_url
from nsmesh.rpc import foreign
from nsmesh.rpc.file_kind import kind_of
from nsmesh.rpc.files import HELD, Files

MOST = 32
"""Files that are held for one connection, or one endpoint, at a time."""


def parsed(url: str) -> Inode | None:
    """Return the inode that a URL names, None where it is of another scheme; raises Invalid."""
    try:
        return inode_of(url)
    except ValueError as error:
        raise Invalid(str(error), remedy="both are decimal numbers, as stat(2) gives them") from error


class Receiver:
    """The files of one element, by the names (connection ids, endpoint names) that it holds them for."""

    def __init__(self, files: Files = HELD) -> None:
        self._files = files
        self._settled: dict[str, frozenset[Inode]] = {}
        self._names: set[str] = set()
        self._opened: dict[str, tuple[str, str]] = {}

    def __len__(self) -> int:
        """Return for how many names something is held."""
        return len(self._names)

    @property
    def names(self) -> Collection[str]:
        """For whom something is held."""
        return self._names

    def known(self, name: str, inode: Inode) -> str | None:
        """Return the path of a file that is held for ``name``, else None."""
        return self._files.path((self, name), inode)

    def inode(self, name: str, path: str) -> Inode | None:
        """Return the inode of the file at ``path`` where it is held for ``name``, else None."""
        return self._files.inode((self, name), path)

    async def receive(
        self,
        name: str,
        inode: Inode,
        passing: Passing | None,
        deadline: float | None,
        *,
        kinds: Collection[str],
        what: str,
    ) -> str:
        """Return the path of the file that ``inode`` names, and hold it for ``name``.

        One that is held for it already needs no descriptor; another is waited for until ``deadline``.
        ``what`` calls the file in errors. Raises Invalid without ``passing`` and where the file is of none of
        ``kinds``, TimedOut, Exhausted.
        """
        path = self.known(name, inode)
        if path is not None:
            if passing is not None:
                passing.expected(*inode)
            return path
        if passing is None:
            raise Invalid(
                f"the descriptor {inode_url(*inode)} of {what} cannot have come: "
                "the message that names it did not come over a unix socket",
                remedy="connect these two over a unix socket; tcp carries no descriptors",
            )
        if self._files.count((self, name)) >= MOST:
            raise Exhausted(
                f"{MOST} files are held for {name} already, and {what} is one more",
                remedy="close it and ask anew",
            )
        fd = await passing.take(*inode, deadline)
        kind = self._files.kind(inode) or kind_of(fd)
        if kind not in kinds:
            os.close(fd)
            raise Invalid(
                f"the descriptor {inode_url(*inode)} of {what} leads to {kind}, "
                f"and {' or '.join(kinds)} was expected",
                remedy="pass the right file on: /proc/thread-self/ns/net, or the socket's own",
            )
        self._names.add(name)
        return self._files.adopt((self, name), inode, fd, kind)

    def take_up(self, name: str, path: str) -> str | None:
        """Hold the file that ``path`` leads to now for ``name``; return the path of what is held.

        The same path for the same name stays the file that it led to first, whatever is there later. None
        where it cannot be opened.
        """
        known = self.taken_up(name, path)
        if known is not None:
            return known
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return None
        self.release(name)
        self._names.add(name)
        held = self._files.adopt((self, name), foreign.inode_of(fd), fd)
        self._opened[name] = (path, held)
        return held

    def taken_up(self, name: str, path: str) -> str | None:
        """Return the path of what :meth:`take_up` holds for this name and path, else None."""
        opened, held = self._opened.get(name, ("", None))
        return held if opened == path else None

    def share(self, name: str, path: str) -> Inode | None:
        """Hold the file at ``path`` for ``name`` too, where somebody in this process holds it."""
        inode = self._files.share((self, name), path)
        if inode is not None:
            self._names.add(name)
        return inode

    def settle(self, name: str, inodes: Collection[Inode]) -> None:
        """Let go of what neither this call nor the one before it named.

        One call later, since what was made with a file (a wire) may still have to be taken away by its path.
        """
        if not inodes and name not in self._names and name not in self._settled:
            return
        current = frozenset(inodes)
        self._files.keep((self, name), current | self._settled.get(name, frozenset()))
        if current:
            self._settled[name] = current
        else:
            self._settled.pop(name, None)
        if not self._files.count((self, name)):
            self._names.discard(name)

    def drop(self, name: str, inode: Inode) -> None:
        """Let go of one file that is held for ``name``."""
        self._files.drop((self, name), inode)
        if not self._files.count((self, name)):
            self._names.discard(name)

    def release(self, name: str) -> None:
        """Let go of all files that are held for ``name``."""
        self._settled.pop(name, None)
        self._opened.pop(name, None)
        self._names.discard(name)
        self._files.release((self, name))

    def close(self) -> None:
        """Let go of everything."""
        for name in list(self._names):
            self.release(name)
