"""The collector: endpoints whose time is over are deleted, by one of all replicas."""

from __future__ import annotations

import asyncio

import structlog

from nsmesh.core.clock import Clock
from nsmesh.core.errors import MeshError, Unauthorized
from nsmesh.kubernetes.lease import Lease
from nsmesh.kubernetes.store import KubernetesStore
from nsmesh.kubernetes.view import Held
from nsmesh.model.messages import NetworkServiceEndpoint
from nsmesh.model.times import seconds

log = structlog.get_logger()

INTERVAL = 1.0
"""Seconds between two looks at what has expired."""
REFUSED = 100.0
"""Seconds until a lease is asked for again that the API server does not let us have."""


class Collector:
    """Deletes expired endpoints of all namespaces while it holds ``lease``. ``run`` goes on until cancelled.

    An endpoint is due at its expiration time. Where that was over already when we first saw this form of it
    (a writer's clock behind ours, or a long stop of all replicas), it gets ``period`` seconds of our own
    clock to register again, so that no skew of clocks takes away what is alive. The same after the API server
    was away: nobody could register meanwhile, so all have ``period`` seconds from then on. Each deletion is
    of the form that was seen; one that was registered again meanwhile stays.
    """

    def __init__(
        self, store: KubernetesStore[NetworkServiceEndpoint], lease: Lease, period: float, clock: Clock
    ) -> None:
        self._store = store
        self._lease = lease
        self._period = period
        self._clock = clock
        self._resumes = 0.0
        """When deletions may begin again, in monotonic seconds."""
        self.collecting = False
        """Whether this replica is the one."""

    async def run(self) -> None:
        """Collect, as long as nobody stops it."""
        next_hold = 0.0
        try:
            while True:
                if self._clock.monotonic() >= next_hold:
                    self.collecting, pause = await self._hold()
                    next_hold = self._clock.monotonic() + pause
                if self._store.reflector.trouble is not None:
                    self._resumes = self._clock.monotonic() + self._period
                if self.collecting and self._clock.monotonic() >= self._resumes:
                    await self.collect()
                await asyncio.sleep(INTERVAL)
        finally:
            if self.collecting:
                await asyncio.shield(self._lease.release())

    async def _hold(self) -> tuple[bool, float]:
        """Say whether this replica collects, and for how many seconds that is so."""
        renewed = self._lease.duration / 3
        try:
            return await self._lease.hold(), renewed
        except Unauthorized as error:
            log.warning("no lease may be taken: this replica collects beside the others", error=str(error))
            # each deletion has its precondition: two collectors are a waste, no harm
            return True, REFUSED
        except MeshError as error:
            log.debug("lease not renewed", error=str(error))
            return False, renewed

    async def collect(self) -> int:
        """Delete what is due now; returns how many."""
        count = 0
        for held in self._store.view:
            if not self._due(held):
                continue
            try:
                if await self._store.remove_unchanged(held):
                    count += 1
                    log.info("endpoint expired: it did not register again in time", endpoint=held.name)
            except MeshError as error:
                log.warning("expired endpoint not deleted yet", endpoint=held.name, error=str(error))
                break
        return count

    def _due(self, held: Held[NetworkServiceEndpoint]) -> bool:
        if held.entry is None or not held.entry.HasField("expiration_time"):
            return False
        ends = seconds(held.entry.expiration_time)
        if ends <= held.seen_wall:
            return self._clock.monotonic() >= held.seen + self._period
        return self._clock.now() >= ends
