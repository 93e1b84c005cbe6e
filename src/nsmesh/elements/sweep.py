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
from nsmesh.core.metrics import Counter
from nsmesh.datapath.base import Datapath

log = structlog.get_logger()

SWEPT = Counter("nsm_sweep_wires", "Wires that were taken away because they belonged to no connection.")

AGAIN = 2.0
"""Seconds after a Close that did not come through until the wire is looked for."""


class Sweep(Element):
    """Takes away wires of this forwarder that belong to no connection.

    A forwarder that died leaves its wires to the next one. Those that live are asked for again within
    ``lifetime`` seconds, the longest life of a token; what nobody has asked for by then is removed, and so it
    goes on every ``lifetime`` seconds. A wire whose Close failed is looked for soon.

    After:  Begin
    Leaves: one timer, and one more for each Close that has just failed
    """

    after = ("Begin",)

    def __init__(self, datapath: Datapath, begin: Begin, lifetime: float) -> None:
        self._datapath = datapath
        self._begin = begin
        self._lifetime = lifetime

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Sweep again and again while the chain runs."""
        self.scope.spawn(self._repeat(), name="sweep")
        yield self

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(self._lifetime)
            await self.sweep()

    async def sweep(self) -> None:
        """Remove what has no connection now. What cannot be removed is met again by the next sweep."""
        try:
            found = await self._datapath.has()
        except MeshError as error:
            log.warning("cannot look for wires without a connection", element="sweep", error=str(error))
            return
        for wire_id in sorted({existing.id for existing in found}):
            await self._remove(wire_id)

    async def _remove(self, wire_id: str) -> None:
        """Remove a wire unless it belongs to a connection; a Request that comes meanwhile has to wait."""
        if self._begin.life(wire_id) is not None:
            return
        async with self._begin.turns.turn(wire_id):
            if self._begin.life(wire_id) is not None:
                return
            try:
                await self._datapath.remove(wire_id)
            except MeshError as error:
                log.warning("cannot remove a wire", element="sweep", connection=wire_id, error=str(error))
            else:
                SWEPT.add()
                log.info("wire without a connection removed", element="sweep", connection=wire_id)

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Look soon whether the wire is still there."""

        def look() -> None:
            self.scope.spawn(self._remove(connection_id), name=f"sweep {connection_id}")

        if self.scope.running:
            self.scope.after(AGAIN, look)
