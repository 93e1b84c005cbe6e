"""The logs of a mesh, kept from filling the disk: what is full becomes ``NAME.log.1``, and begins anew.

Whoever writes a log has it open for appending and knows nothing of this: the text is copied away and the file
is made empty. What is written in the instant between the two is lost.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import structlog

log = structlog.get_logger()

LARGEST = 16 << 20
"""Bytes that a log may have before it is put aside; with what was put aside last it has twice as many."""
PAUSE = 5.0
"""Seconds between two looks."""


def earlier(path: Path) -> Path:
    """Return where the text of a log is that was put aside last."""
    return path.with_name(f"{path.name}.1")


def put_aside(path: Path) -> None:
    """Let a log begin anew; what it said is in its :func:`earlier` file, and what was there is gone."""
    aside = path.with_name(f"{path.name}.new")
    try:
        with path.open("rb") as source, aside.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            # followers see first that the log is empty, and then where the rest of it is
            path.write_bytes(b"")
        aside.replace(earlier(path))
    finally:
        aside.unlink(missing_ok=True)


async def keep_small(folder: Path, largest: int = LARGEST, pause: float = PAUSE) -> None:
    """Look at all logs of a folder, for ever."""
    while True:
        for path in folder.glob("*.log"):
            try:
                if path.stat().st_size > largest:
                    await asyncio.to_thread(put_aside, path)
            except OSError as error:
                log.warning("a log cannot be put aside", file=str(path), error=str(error))
        await asyncio.sleep(pause)
