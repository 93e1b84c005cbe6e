"""A time of day for the processes of one mesh: no namespace has one of its own, so libfaketime gives it."""

from __future__ import annotations

from pathlib import Path

from nsmesh.core.errors import NotFound

_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
_NAME = "faketime/libfaketime.so.1"


def library() -> Path:
    """Return where libfaketime is; raises NotFound."""
    for folder in map(Path, _FOLDERS):
        for found in (folder / _NAME, *folder.glob(f"*/{_NAME}")):
            if found.exists():
                return found
    raise NotFound(
        "libfaketime is not installed: the clock of one mesh cannot be set",
        remedy="install it (Debian: apt install faketime)",
    )


def can_be_set() -> bool:
    """Whether the clock of one mesh can be set here."""
    try:
        library()
    except NotFound:
        return False
    return True


class SetClock:
    """The clock of those who are started with ``environment``; it is right until it is set.

    It is in a file of ``folder`` that they read each time. Raises NotFound.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.environment = {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.put(0)

    def put(self, seconds: int) -> None:
        """Set it, at once for all, to so many seconds after the right time, or before it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)
