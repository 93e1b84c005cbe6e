"""The level of logs as a file says it: a ConfigMap of a cluster, which nobody restarts a process for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from nsmesh.core import logging
from nsmesh.core.logging import LEVELS
from nsmesh.core.scope import Scope

log = structlog.get_logger()

LOOK = 2.0
"""Seconds between two looks at the file."""


class LevelFile:
    """Applies the level that ``path`` says, whenever that changes; ``default`` where there is no file.

    A word that is no level, and a file that cannot be read, leave what was, and are told once. What a signal
    has chosen meanwhile stays until the file changes.
    """

    def __init__(self, path: Path, default: str) -> None:
        self._path = path
        self._default = default
        self._seen: str | None = None
        self.level = default
        """What the file, or the default, says now."""

    def look(self) -> None:
        """Read it, and apply what is news."""
        try:
            word = self._path.read_text(encoding="utf-8").strip() or self._default
        except FileNotFoundError:
            word = self._default
        except (OSError, UnicodeDecodeError) as error:
            word = f"unreadable: {error}"
        if word == self._seen:
            return
        self._seen = word
        if word.upper() not in LEVELS:
            known = ", ".join(sorted(LEVELS))
            log.warning("no level of logs", file=str(self._path), said=word[:80], known=known)
            return
        more = LEVELS[word.upper()] < LEVELS.get(self.level.upper(), LEVELS["INFO"])
        changed, self.level = word.upper() != self.level.upper(), word
        if more:  # said while it can be seen
            logging.set_level(word)
        if changed:
            log.info("level of logs", lowest=word.upper())
        logging.set_level(word)

    async def follow(self, interval: float = LOOK) -> None:
        """Look again and again, until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(interval)


@asynccontextmanager
async def followed(path: str, default: str) -> AsyncIterator[LevelFile]:
    """Follow a file while the block runs; an empty name is no file, and ``default`` stays."""
    found = LevelFile(Path(path), default)
    async with Scope("level of logs") as scope:
        if path:
            scope.spawn(found.follow(), name="level of logs")
        yield found
