"""Turns of processes that harm meshes of their own: so many at a time, while the others rest."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

PAUSE = 0.02
"""Seconds between two looks for a turn."""


class Turns:
    """The files of a folder are turns: who has one of them locked has a turn, and whoever ends has none.

    Without a folder there are as many as are wanted. Raises OSError where the folder cannot be read.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._files = sorted(folder.iterdir()) if folder is not None else []

    @staticmethod
    def make(folder: Path, many: int) -> None:
        """Make ``many`` turns in an empty folder."""
        for number in range(many):
            (folder / str(number)).touch()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Have a turn while the block runs, as soon as there is one."""
        if not self._files:
            yield
            return
        while True:
            for path in self._files:
                with path.open("rb") as file:
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue
                    yield
                    return
            await asyncio.sleep(PAUSE)
