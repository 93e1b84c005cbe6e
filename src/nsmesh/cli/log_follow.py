"""Following logs that grow, and that begin anew when they are full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nsmesh.standalone.log_files import earlier


class Followed:
    """One log, read line by line. ``place``: where to begin, in bytes."""

    def __init__(self, path: Path, place: int = 0) -> None:
        self._path = path
        self._place = place
        self._aside = _inode(earlier(path))

    def lines(self) -> Iterator[str]:
        """Give the whole lines that were written since the last time."""
        aside = _inode(earlier(self._path))
        if aside != self._aside:
            self._aside = aside
            yield from self._read(earlier(self._path))
            self._place = 0
        yield from self._read(self._path)

    def _read(self, path: Path) -> Iterator[str]:
        try:
            with path.open("rb") as stream:
                stream.seek(self._place)
                for line in stream:
                    if not line.endswith(b"\n"):
                        return  # half a line: its rest comes later
                    self._place += len(line)
                    yield line[:-1].decode(errors="replace")
        except OSError:
            return  # it went away with its mesh


def _inode(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns
