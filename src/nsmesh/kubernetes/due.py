"""What is to be looked at and written, one object after the other, while the API server comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from nsmesh.core.errors import MeshError, TimedOut, Unavailable
from nsmesh.core.pauses import pauses
from nsmesh.kubernetes.reflector import FIRST_PAUSE, LONGEST_PAUSE
from nsmesh.kubernetes.wires import Place

log = structlog.get_logger()


class Due:
    """Places that somebody has to look at; each stands here once, however often it is named."""

    def __init__(self) -> None:
        self._places: dict[Place, None] = {}
        self._wake = asyncio.Event()

    def put(self, place: Place) -> None:
        """Have a place looked at."""
        self._places[place] = None
        self._wake.set()

    async def each(
        self, settle: Callable[[Place], Awaitable[None]], failed: Callable[[Place, MeshError], None]
    ) -> NoReturn:
        """Settle one place after the other. While the API server is away they wait, ever longer.

        ``failed`` hears of what went wrong otherwise: nothing is tried again unless it is put here.
        """
        delays = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            await self._wake.wait()
            if not self._places:
                self._wake.clear()
                continue
            place = next(iter(self._places))
            del self._places[place]
            try:
                await settle(place)
                delays = pauses(FIRST_PAUSE, LONGEST_PAUSE)
            except (Unavailable, TimedOut) as error:
                log.debug("waits for the API server", place="/".join(place), error=str(error))
                self.put(place)
                await asyncio.sleep(next(delays))
            except MeshError as error:
                failed(place, error)
