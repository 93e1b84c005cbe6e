"""Whether a URL still leads to the socket that was dialled: numbers of descriptors are used again."""

from __future__ import annotations

from functools import lru_cache

from nsmesh.core.process import stat_of
from nsmesh.rpc.address import parse

Place = tuple[int, int, int]
"""What tells one socket's file from another, also from one that gets its inode number later."""


@lru_cache(maxsize=256)
def _path(url: str) -> str:
    return parse(url).path


def place_of(url: str) -> Place | None:
    """Return the place of a socket at ``unix:///proc/PID/fd/N``, whose number may be used again.

    None for all other addresses, and where nothing is there.
    """
    if not url.startswith("unix:///proc/"):
        return None
    try:
        found = stat_of(_path(url))
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns
