"""A process, told apart from a later one that was given the same number; and its own descriptors."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def start_ticks(pid: int) -> int | None:
    """Return the start time of a living process in clock ticks since boot; None if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def stat_of(path: str) -> os.stat_result:
    """Return what ``os.stat`` says of a path; raises OSError.

    ``/proc/PID/fd/N`` of this process is asked of the descriptor itself, which takes a quarter of the time.
    """
    number = _own_descriptor(path, os.getpid())
    if number is not None:
        try:
            return os.fstat(number)
        except OSError:
            pass  # the path says in its own words what is wrong with it
    return os.stat(path)  # noqa: PTH116 - for each Request: a Path takes ten times as long


@lru_cache(1024)
def _own_descriptor(path: str, pid: int) -> int | None:
    """Return N of ``/proc/PID/fd/N`` with this PID; None for other paths, those that no kernel writes too."""
    text = path.removeprefix(f"/proc/{pid}/fd/")
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        return None
    return int(text) if str(int(text)) == text else None


def boot_id() -> str:
    """Return what tells this boot of the machine from others."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return os.uname().nodename
