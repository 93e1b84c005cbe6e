"""Sweep: a wire that belongs to no connection goes away, whoever made it and however that one ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import structlog

from nsmesh.core.begin import Begin
from nsmesh.core.call import State
from nsmesh.core.element import Element
from nsmesh.core.errors import MeshError
from nsmesh.core.journalling import Journal
from nsmesh.core.metrics import Counter
from nsmesh.datapath.base import Datapath

log = structlog.get_logger()

SWEPT = Counter("nsm_sweep_wires", "Wires that were taken away because they belonged to no connection.")

AGAIN = 2.0
"""Seconds after a Close that did not come through until the wire is looked for."""


class Sweep(Element):
    """Takes away wires of this forwarder that belong to no connection.

    A forwarder that died leaves its wires to the next one; what it was just making or deleting goes when that
    starts. With a ``journal`` that is whole, what is not in it was never agreed, or is closed: it is removed
    at once. Else those that live are asked for again within ``lifetime`` seconds, the longest life of a
    token; what nobody has asked for by then is removed, and so it goes on every ``lifetime`` seconds. A wire
    whose Close failed is looked for soon.

    After:  Begin
    Leaves: one timer, and one more for each Close that has just failed
    """

    after = ("Begin",)

    def __init__(
        self, datapath: Datapath, begin: Begin, lifetime: float, journal: Journal | None = None
    ) -> None:
        self._datapath = datapath
        self._begin = begin
        self._lifetime = lifetime
        self._journal = journal

    async def reclaim(self, wire_id: str) -> bool:
        """Remove a wire that is in the way, where it is known to be nobody's; say whether it is gone."""
        known = self._journal is not None and self._journal.whole and self._begin.life(wire_id) is None
        return known and await self.remove(wire_id)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Sweep again and again while the chain runs."""
        self.scope.spawn(self._repeat(), name="sweep")
        yield self

    async def _repeat(self) -> None:
        await self._tidy()
        if self._journal is not None:
            await self._start(self._journal)
        while True:
            await asyncio.sleep(self._lifetime)
            await self.sweep()

    async def _tidy(self) -> None:
        """Take away what a process before us had begun and not marked yet, or not deleted yet."""
        try:
            found = await self._datapath.tidy()
        except MeshError as error:
            log.warning("cannot look for what was left half made", element="sweep", error=str(error))
            return
        if found:
            SWEPT.add(by=found)
            log.info("what was left half made is removed", element="sweep", interfaces=found)

    async def _start(self, journal: Journal) -> None:
        if journal.whole:
            await self.sweep()
        elif await self._strays() == []:
            journal.vouch()

    async def _strays(self) -> list[str] | None:
        """Return the ids of wires without a connection, None where nobody can tell."""
        try:
            found = await self._datapath.has()
        except MeshError as error:
            log.warning("cannot look for wires without a connection", element="sweep", error=str(error))
            return None
        return sorted({one.id for one in found if self._begin.life(one.id) is None})

    async def sweep(self) -> None:
        """Remove what has no connection now. What cannot be removed is met again by the next sweep."""
        strays = await self._strays()
        if strays is None:
            return
        gone = [await self.remove(wire_id) for wire_id in strays]
        if self._journal is not None and all(gone):
            self._journal.vouch()

    async def remove(self, wire_id: str) -> bool:
        """Remove a wire unless it belongs to a connection; a Request that comes meanwhile has to wait.

        Return whether there is none without a connection any more.
        """
        if self._begin.life(wire_id) is not None:
            return True
        async with self._begin.turns.turn(wire_id):
            if self._begin.life(wire_id) is not None:
                return True
            try:
                await self._datapath.remove(wire_id)
            except MeshError as error:
                log.warning("cannot remove a wire", element="sweep", connection=wire_id, error=str(error))
                return False
            SWEPT.add()
            log.info("wire without a connection removed", element="sweep", connection=wire_id)
            return True

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Look soon whether the wire is still there."""

        def look() -> None:
            self.scope.spawn(self._look(connection_id), name=f"sweep {connection_id}")

        if self.scope.running:
            self.scope.after(AGAIN, look)

    async def _look(self, connection_id: str) -> None:
        await self.remove(connection_id)
