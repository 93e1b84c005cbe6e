"""The client of a Workload API: keeps an :class:`SvidSource` up to date while a block runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog

from nsmesh import rpc
from nsmesh.core.clock import Clock, SystemClock
from nsmesh.core.errors import Invalid, MeshError, Status, TimedOut, Unavailable
from nsmesh.core.pauses import pauses
from nsmesh.core.scope import Scope
from nsmesh.security.svid import Svid, SvidSource
from nsmesh.security.verify import Bundle
from nsmesh.security.workload_names import SECURITY_HEADER, SERVICE
from nsmesh.security.workload_response import read_x509_response

log = structlog.get_logger()

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds between two tries, about. The field's begin with 1 (contract 3.7), and an API may start in less."""
DIAL = 5.0
"""Seconds that a dial of the API may take."""
FINAL = frozenset({Status.CANCELLED, Status.INVALID_ARGUMENT})
"""Answers after which asking again is of no use."""


class WorkloadWatch:
    """Follows one Workload API: every SVID that it pushes goes into ``source``.

    An API that was away, and forgot what it had issued, comes back with another key for the same ID. Peers
    keep connections on which they were shown the one that we have, so that one is kept until its half life,
    as long as the bundles vouch for it. What is pushed on a running stream is taken at once.

    ``failed`` is set when the API gave a final answer; its result is that error.
    """

    def __init__(self, url: str, source: SvidSource, clock: Clock | None = None) -> None:
        self.url = url
        self.source = source
        self._clock = clock or SystemClock()
        self._offered: tuple[Svid, list[Bundle]] | None = None
        self._offer = asyncio.Event()
        self.failed: asyncio.Future[MeshError] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Follow, over and over, until cancelled or given a final answer."""
        delays = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            updates = 0
            try:
                async for message in self._messages():
                    updates += self._take(message, first=not updates)
                error: MeshError = Unavailable("the Workload API ended the stream")
            except MeshError as failure:
                error = failure
            if error.status in FINAL:
                log.error("the Workload API gave a final answer", url=self.url, error=str(error))
                self.failed.set_result(error)
                return
            if updates:
                delays = pauses(FIRST_PAUSE, LONGEST_PAUSE)
            pause = next(delays)
            log.warning("no Workload API for now", url=self.url, error=str(error), again_in=round(pause, 1))
            await asyncio.sleep(pause)

    async def _messages(self) -> AsyncIterator[bytes]:
        client = await rpc.connect(self.url, timeout=DIAL)
        try:
            stream = client.stream(SERVICE + "FetchX509SVID", b"", metadata=((SECURITY_HEADER, "true"),))
            try:
                async for message in stream:
                    yield message
            finally:
                await stream.aclose()
        finally:
            await client.aclose(0)

    def _take(self, message: bytes, *, first: bool) -> bool:
        """Put one answer, the ``first`` of a stream or not, into the source; one of no use is said so."""
        try:
            svid, bundles = read_x509_response(message)
        except Invalid as error:
            log.warning("the Workload API sent what cannot be used", url=self.url, error=str(error))
            return False
        bundles = list(bundles)
        self._offered = None
        if first and self.source.vouched(svid.spiffe_id, bundles) and self._clock.now() < self._half_life():
            if svid.chain != self.source.svid.chain:
                self._offered = (svid, bundles)
                self._offer.set()
            self.source.trust(bundles)
            log.info("SVID kept", spiffe_id=svid.spiffe_id, not_after=self.source.svid.not_after)
            return True
        self.source.update(svid, bundles)
        log.info("SVID received", spiffe_id=svid.spiffe_id, not_after=svid.not_after)
        return True

    def _half_life(self) -> float:
        """Return the wall time at which our SVID is due to be replaced."""
        svid = self.source.svid
        return (svid.not_before + svid.not_after) / 2

    async def catch_up(self) -> None:
        """Take what was offered when the one that was kept comes to its half life, until cancelled."""
        while True:
            await self._offer.wait()
            self._offer.clear()
            while self._offered is not None:
                left = self._half_life() - self._clock.now()
                if left <= 0:
                    (svid, bundles), self._offered = self._offered, None
                    self.source.update(svid, bundles)
                    log.info("SVID replaced at its half life", spiffe_id=svid.spiffe_id)
                else:
                    await asyncio.sleep(min(left, LONGEST_PAUSE))


@asynccontextmanager
async def fetched_identity(
    url: str,
    *,
    wait: float | None = None,
    clock: Clock | None = None,
    watching: Callable[[str, SvidSource, Clock], WorkloadWatch] = WorkloadWatch,
) -> AsyncIterator[SvidSource]:
    """Yield a source that the Workload API at ``url`` keeps up to date, once it holds an SVID.

    ``wait``: seconds to wait for the first SVID; None waits for ever. ``watching`` makes what follows the
    API, or another one. Raises TimedOut after that time, and the API's own error where its answer is final.
    """
    async with Scope("workload api client", clock) as scope:
        source = SvidSource(clock=scope.clock)
        watch = watching(url, source, scope.clock)
        scope.spawn(watch.run(), name="workload api")
        scope.spawn(watch.catch_up(), name="kept svid")
        ready = scope.spawn(_ready(source), name="first svid")
        either: set[asyncio.Future[Any]] = {ready, watch.failed}
        done, _ = await asyncio.wait(either, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise TimedOut(
                f"the Workload API at {url} gave no SVID within {wait:g} s",
                remedy="see that it runs, and has an entry for this process",
            )
        if watch.failed in done:
            raise watch.failed.result()
        yield source


async def _ready(source: SvidSource) -> None:
    await source.wait()
