"""RegisterHeal: what is registered stays registered, also when a manager or registry loses it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.pauses import pauses
from nsmesh.core.peering import closing
from nsmesh.core.turns import Turns
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Entry
from nsmesh.model.renewal import renewal
from nsmesh.registry.query import own_query

log = structlog.get_logger()

INTERVAL = 0.2
"""Seconds between tries, at first."""
LONGEST = 2.0
"""Seconds between tries, after many."""
TRY = 15.0
"""Seconds that one try may take."""
STEADY = 5.0
"""Seconds that a watch must have lived for its end to be answered at once."""


@dataclass(eq=False, slots=True)
class _Watched:
    """One entry that is watched. ``again`` is what is sent when it has to be registered again."""

    again: Entry
    call: Call
    next: Handler
    task: asyncio.Task[None] | None = None


class RegisterHeal(Element):
    """Watches each registered entry by its own name, and registers it again when the watch ends.

    Any end counts, with or without an error: whoever was asked may have lost the entry. So does the word that
    it was deleted, since nobody here unregistered it. The first try comes at once, unless watches end as soon
    as they begin.

    After:  RegisterRetry
    Leaves: one watch per entry
    Close:  Unregister ends the watch, passes on
    """

    after = ("Begin", "RegisterRetry")

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._turns = Turns()

    def __len__(self) -> int:
        """Return how many entries are watched."""
        return len(self._watched)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Pass on, then watch."""
        key = _key(entry)
        async with self._turns.turn(key):
            asked = copy_of(entry)
            answer = await next.register(call, entry)
            again = renewal(asked, answer)
            watched = self._watched.get(key)
            if watched is None:
                watched = self._watched[key] = _Watched(again, call.fresh(), next)
                watched.task = self.scope.spawn(self._heal(key, watched), name=f"watch of {key}")
            else:
                watched.again = again
            return answer

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """End the watch, pass on, whatever becomes of it; a healing under way ends first."""
        key = _key(entry)
        async with self._turns.turn(key):
            watched = self._watched.pop(key, None)
            if watched is not None and watched.task is not None:
                watched.task.cancel()
            await next.unregister(call, entry)

    async def _heal(self, key: str, watched: _Watched) -> None:
        short = pauses(INTERVAL, LONGEST)
        while True:
            begun = self.scope.clock.monotonic()
            why = await self._follow(watched)
            log.info("the watch of a registration ended: register again", entry=key, why=why)
            if self.scope.clock.monotonic() - begun < STEADY:
                await asyncio.sleep(next(short))
            else:
                short = pauses(INTERVAL, LONGEST)
            if not await self._register_again(key, watched):
                return

    async def _follow(self, watched: _Watched) -> str:
        """Return why the watch is over."""
        query = own_query(watched.again, watch=True)
        try:
            async with closing(watched.next.find(watched.call, query)) as found:
                async for item in found:
                    if item.deleted:
                        return "the entry was deleted"
        except MeshError as error:
            return str(error)
        return "its stream ended"

    async def _register_again(self, key: str, watched: _Watched) -> bool:
        """Register until it works; False when the entry was unregistered meanwhile."""
        for failures, pause in enumerate(pauses(INTERVAL, LONGEST)):
            async with self._turns.turn(key):
                if self._watched.get(key) is not watched:
                    return False
                try:
                    answer = await watched.next.register(watched.call.within(TRY), copy_of(watched.again))
                except MeshError as error:
                    if not failures:
                        log.warning("not registered again yet", entry=key, error=str(error))
                else:
                    watched.again = renewal(watched.again, answer)
                    return True
            await asyncio.sleep(pause)
        return False  # pragma: no cover - pauses do not end


def _key(entry: Entry) -> str:
    """Return kind and name: a service and an endpoint may share a name."""
    return f"{type(entry).__name__} {entry.name}"
