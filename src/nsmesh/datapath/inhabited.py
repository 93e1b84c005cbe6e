"""Whether anybody is left in a network namespace, besides those that only hold a descriptor of it."""

from __future__ import annotations

from pathlib import Path


def inhabited(path: str) -> bool:
    """Return whether a process lives in the namespace at ``path``, or it is mounted somewhere by a name.

    Looks through /proc: a few milliseconds. Threads are not looked at, those of a process count as it does.
    A namespace that is not there has nobody in it.
    """
    try:
        wanted = Path(path).stat()
    except OSError:
        return False
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found = (entry / "ns" / "net").stat()
            except OSError:
                continue  # it has ended, or is not ours to look at
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return True
    return f" net:[{wanted.st_ino}] " in Path("/proc/self/mountinfo").read_text()
