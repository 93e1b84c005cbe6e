"""Files that came as descriptors and are held: one descriptor for each, however many need it.

While a file is held its path ``/proc/PID/fd/N`` stays the same and its inode number means nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field

from nsmesh.model.fileurl import Inode

Owner = Hashable


@dataclass(eq=False, slots=True)
class _File:
    fd: int
    inode: Inode
    path: str
    kind: str
    owners: set[Owner] = field(default_factory=set)


class Files:
    """Held files, by inode and by path, and who needs which. The last owner's release closes a file."""

    def __init__(self) -> None:
        self._by_inode: dict[Inode, _File] = {}
        self._by_path: dict[str, _File] = {}
        self._owned: dict[Owner, dict[Inode, _File]] = {}

    def __len__(self) -> int:
        """Return how many files are held."""
        return len(self._by_inode)

    def kind(self, inode: Inode) -> str | None:
        """Return what a file is, as its :meth:`adopt` said; None for one that is not held."""
        file = self._by_inode.get(inode)
        return file.kind if file else None

    def adopt(self, owner: Owner, inode: Inode, fd: int, kind: str = "") -> str:
        """Take ``fd``, which leads to ``inode``, over for ``owner`` and return the path of its file.

        A second one of the same file is closed.
        """
        file = self._by_inode.get(inode)
        if file is None:
            file = _File(fd, inode, f"/proc/{os.getpid()}/fd/{fd}", kind)
            self._by_inode[inode] = self._by_path[file.path] = file
        else:
            os.close(fd)
        self._own(owner, file)
        return file.path

    def share(self, owner: Owner, path: str) -> Inode | None:
        """Make ``owner`` one more owner of the file at ``path``; None where that is no held file."""
        file = self._by_path.get(path)
        if file is None:
            return None
        self._own(owner, file)
        return file.inode

    def _own(self, owner: Owner, file: _File) -> None:
        file.owners.add(owner)
        self._owned.setdefault(owner, {})[file.inode] = file

    def path(self, owner: Owner, inode: Inode) -> str | None:
        """Return the path of a file that ``owner`` owns, else None."""
        file = self._owned.get(owner, {}).get(inode)
        return file.path if file else None

    def inode(self, owner: Owner, path: str) -> Inode | None:
        """Return the inode of a file that ``owner`` owns, else None."""
        file = self._by_path.get(path)
        return file.inode if file and owner in file.owners else None

    def count(self, owner: Owner) -> int:
        """Return how many files ``owner`` owns."""
        return len(self._owned.get(owner, ()))

    def drop(self, owner: Owner, inode: Inode) -> None:
        """Release one file of ``owner``."""
        self.keep(owner, self._owned.get(owner, {}).keys() - {inode})

    def keep(self, owner: Owner, inodes: Collection[Inode]) -> None:
        """Release all files of ``owner`` but these."""
        owned = self._owned.get(owner)
        if owned is None:
            return
        for inode in [inode for inode in owned if inode not in inodes]:
            self._disown(owner, owned.pop(inode))
        if not owned:
            del self._owned[owner]

    def release(self, owner: Owner) -> None:
        """Release all files of ``owner``."""
        self.keep(owner, ())

    def _disown(self, owner: Owner, file: _File) -> None:
        file.owners.discard(owner)
        if not file.owners:
            del self._by_inode[file.inode]
            del self._by_path[file.path]
            os.close(file.fd)


HELD = Files()
"""The held files of this process: roles that share it share them."""
