"""KeepWire: a wire that somebody set down or deleted is made again; one that cannot be is told as dead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import structlog

from nsmesh.core.begin import Begin
from nsmesh.core.call import State
from nsmesh.core.element import Element
from nsmesh.core.errors import MeshError
from nsmesh.core.metrics import Counter
from nsmesh.core.path_event import Observer, PathEvent
from nsmesh.datapath.announcing import announce_often
from nsmesh.datapath.base import Datapath, Watched

log = structlog.get_logger()

RESTORED = Counter("nsm_wires_restored", "Wires that were made again after others had changed them.")

PAUSE, LONGEST = 0.25, 8.0
"""Seconds between two repairs of one wire: the first pause, which doubles, and the longest.

A wire that stood twice as long as its pause begins anew.
"""

GRACE = 0.1
"""Seconds within which whoever knows of the loss by itself, as by a stream that broke, may close the wire."""


class KeepWire(Element):
    """Repairs what others do to the wires here, one attempt at a time for each.

    Whoever sets an interface down inside a pod gets it back up: who wants no wire closes the connection.
    Somebody who insists is answered ever later. ``tell`` hears of wires that cannot be made, when the other
    namespace has gone for instance; their clients heal. What was made again is announced to its neighbours.

    After:  Begin, Monitor
    Leaves: one timer for a wire that was repaired just now
    """

    after = ("Begin", "Monitor")

    def __init__(self, datapath: Datapath, begin: Begin, tell: Observer) -> None:
        self._datapath = datapath
        self._begin = begin
        self._tell = tell
        self._pending: set[str] = set()
        self._last: dict[str, tuple[float, float]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listen while the chain runs."""
        if isinstance(self._datapath, Watched):
            self._datapath.watch(self._look)
        yield self

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Forget when it was repaired."""
        self._last.pop(connection_id, None)

    def _look(self, connection_id: str) -> None:
        if connection_id in self._pending or not self.scope.running:
            return
        self._pending.add(connection_id)
        before, pause = self._last.get(connection_id, (0.0, 0.0))
        now = self.scope.clock.monotonic()
        if now - before >= 2 * pause:
            self._last.pop(connection_id, None)
        wait = max(before + pause - now, 0.0)

        def start() -> None:
            self.scope.spawn(self._repair(connection_id), name=f"repair {connection_id}")

        if wait:
            self.scope.after(wait, start)
        else:
            start()

    async def _repair(self, connection_id: str) -> None:
        assert isinstance(self._datapath, Watched)
        try:
            async with self._begin.turns.turn(connection_id):
                self._pending.discard(connection_id)
                if self._begin.life(connection_id) is None:
                    return
                applied = await self._datapath.restore(connection_id)
        except MeshError as error:
            self._lost(connection_id, error)
            return
        finally:
            self._pending.discard(connection_id)
        if applied is not None and applied.outcome != "unchanged":
            _, pause = self._last.get(connection_id, (0.0, 0.0))
            now = self.scope.clock.monotonic()
            self._last[connection_id] = now, min(2 * pause, LONGEST) if pause else PAUSE
            RESTORED.add()
            self.scope.spawn(announce_often(self._datapath, connection_id), name=f"announce {connection_id}")
            log.info("wire restored", connection=connection_id, outcome=applied.outcome)

    def _lost(self, connection_id: str, error: MeshError) -> None:
        """Tell of a wire that cannot be made, unless a Close or Request soon ends it or makes it anew."""
        life = self._begin.life(connection_id)
        known = life.connection if life is not None else None
        log.warning("data path lost", connection=connection_id, error=str(error))

        def tell() -> None:
            now = self._begin.life(connection_id)
            if known is not None and now is not None and now is life and now.connection == known:
                self._tell(PathEvent((connection_id,), up=False, why=str(error)))

        self.scope.after(GRACE, tell)
