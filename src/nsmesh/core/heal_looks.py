"""Looking whether a wire lives that is to be healed: by its carrier, which costs nothing, and by packets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.core.heal_watch import QUICK, QUICKEST, HealWatch
from nsmesh.core.scope import Scope
from nsmesh.model.messages import Connection

log = structlog.get_logger()

GLANCE = 0.02
"""Seconds to the first look at a wire's carrier in a pause; to each next one twice as long."""
TURNS = 10
"""Turns of the loop in which an answer is read that came together with the end of the time for it."""

Alive = Callable[[Connection], Awaitable[bool]]
"""Says whether packets go through a connection, now."""
Carries = Callable[[Connection], bool]
"""Says at once, without a packet, whether a wire's interface is up at both ends."""


class Looks:
    """Looks at wires; ``limit``: seconds that one look may take; ``scope`` has the clock.

    Without ``alive`` no wire is found alive, without ``carries`` each has a carrier.
    """

    def __init__(
        self, alive: Alive | None, carries: Carries | None, *, limit: float, scope: Callable[[], Scope]
    ) -> None:
        self._alive = alive
        self._carries = carries
        self._limit = limit
        self._scope = scope

    def _now(self) -> float:
        return self._scope().clock.monotonic()

    @property
    def possible(self) -> bool:
        """Whether packets can be looked for at all."""
        return self._alive is not None

    async def is_alive(self, connection: Connection, limit: float | None = None) -> bool:
        """Look for packets once."""
        if self._alive is None:
            return False
        look = asyncio.ensure_future(self._alive(connection))
        try:
            await asyncio.wait((look,), timeout=limit or self._limit)
            for _ in range(TURNS):
                if look.done():
                    return look.result()
                await asyncio.sleep(0)
            log.info("probe failed", connection=connection.id, error="no answer in time")
        except (TimeoutError, OSError, MeshError) as error:
            log.info("probe failed", connection=connection.id, error=str(error))
        finally:
            if not look.done():
                look.cancel()
                await asyncio.wait((look,))
        return False

    async def is_alive_after_all(self, watch: HealWatch, *, patient: bool) -> bool:
        """Look briefly, or as long as a probe does. A process that stood still meanwhile has not looked."""
        brief = (watch.brief, QUICK, self._limit)
        for limit in (self._limit, self._limit) if patient and self._has_carrier(watch) else brief:
            if not (patient or self._has_carrier(watch)):
                return False
            began = self._now()
            if await self.is_alive(watch.connection, min(limit, self._limit)):
                return True
            if self._now() - began <= limit + QUICKEST:
                return False
        return False

    def _has_carrier(self, watch: HealWatch) -> bool:
        return self._carries is None or self._carries(watch.connection)

    async def pause(self, watch: HealWatch, seconds: float, *, alive: bool) -> None:
        """Wait, but no longer than until a wire that was found alive loses its carrier.

        An endpoint's namespace may answer a few milliseconds longer than its process lives.
        """
        over, glance = self._now() + seconds, GLANCE
        if alive and self._carries is not None and self._has_carrier(watch):
            while self._now() + glance < over:
                await asyncio.sleep(glance)
                if not self._has_carrier(watch):
                    return
                glance *= 2
        await asyncio.sleep(max(0.0, over - self._now()))
