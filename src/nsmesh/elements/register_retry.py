"""RegisterRetry: registering is tried until it works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Conflict, Invalid, MeshError, Unauthorized, Unimplemented
from nsmesh.core.pauses import pauses
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Entry

log = structlog.get_logger()

T = TypeVar("T")

INTERVAL = 0.2
"""Seconds between tries, at first."""
LONGEST = 2.0
"""Seconds between tries, after many."""
TRY = 15.0
"""Seconds that one try may take."""

FINAL = (Invalid, Unauthorized, Conflict, Unimplemented)
"""What a second try cannot change: the caller is told at once."""


class RegisterRetry(Element):
    """Repeats Register and Unregister until they succeed or the call's deadline leaves no room for a try.

    Each try gets ``limit`` seconds. Between tries lie ``interval`` seconds, growing to :data:`LONGEST`.
    Without a deadline it goes on for ever; a refusal that no repetition changes (:data:`FINAL`) is raised.

    After:  Begin
    """

    after = ("Begin",)

    def __init__(self, interval: float = INTERVAL, *, limit: float = TRY) -> None:
        self._interval = interval
        self._limit = limit

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Pass a copy on, again and again."""
        return await self._again(
            call, "Register", entry.name, lambda within: next.register(within, copy_of(entry))
        )

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Pass a copy on, again and again."""
        await self._again(
            call, "Unregister", entry.name, lambda within: next.unregister(within, copy_of(entry))
        )

    async def _again(self, call: Call, verb: str, name: str, once: Callable[[Call], Awaitable[T]]) -> T:
        waits = pauses(self._interval, LONGEST)
        failures = 0
        while True:
            try:
                result = await once(call.within(self._limit))
            except FINAL:
                raise
            except MeshError as error:
                pause = next(waits)
                if call.deadline is not None and self.scope.clock.monotonic() + pause >= call.deadline:
                    raise
                failures += 1
                if failures == 1:
                    log.warning("registration failed, trying again", verb=verb, name=name, error=str(error))
                await asyncio.sleep(pause)
            else:
                if failures:
                    log.info("registration succeeded", verb=verb, name=name, tries=failures + 1)
                return result
