"""A process, told apart from a later one that was given the same number."""

from __future__ import annotations

import os
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


def boot_id() -> str:
    """Return what tells this boot of the machine from others."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return os.uname().nodename
