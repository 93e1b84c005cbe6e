"""The client of a Workload API: keeps an :class:`SvidSource` up to date while a block runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog

from nsmesh import rpc
from nsmesh.chains.workload_api import SERVICE
from nsmesh.core.clock import Clock
from nsmesh.core.errors import Invalid, MeshError, Status, TimedOut, Unavailable
from nsmesh.core.scope import Scope
from nsmesh.security.svid import SvidSource
from nsmesh.security.workload_api import SECURITY_HEADER
from nsmesh.security.workload_response import read_x509_response

log = structlog.get_logger()

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds between two tries: 1, 2, 3 ... 30 (contract 3.7)."""
DIAL = 5.0
"""Seconds that a dial of the API may take."""
FINAL = frozenset({Status.CANCELLED, Status.INVALID_ARGUMENT})
"""Answers after which asking again is of no use."""


class WorkloadWatch:
    """Follows one Workload API: every SVID that it pushes goes into ``source``.

    ``failed`` is set when the API gave a final answer; its result is that error.
    """

    def __init__(self, url: str, source: SvidSource) -> None:
        self.url = url
        self.source = source
        self.failed: asyncio.Future[MeshError] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Follow, over and over, until cancelled or given a final answer."""
        pause = FIRST_PAUSE
        while True:
            updates = 0
            try:
                async for message in self._messages():
                    updates += self._take(message)
                error: MeshError = Unavailable("the Workload API ended the stream")
            except MeshError as failure:
                error = failure
            if error.status in FINAL:
                log.error("the Workload API gave a final answer", url=self.url, error=str(error))
                self.failed.set_result(error)
                return
            if updates:
                pause = FIRST_PAUSE
            log.warning("no Workload API for now", url=self.url, error=str(error), again_in=pause)
            await asyncio.sleep(pause)
            pause = min(pause + FIRST_PAUSE, LONGEST_PAUSE)

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

    def _take(self, message: bytes) -> bool:
        """Put one answer into the source; one that cannot be used is said so and left."""
        try:
            svid, bundles = read_x509_response(message)
        except Invalid as error:
            log.warning("the Workload API sent what cannot be used", url=self.url, error=str(error))
            return False
        self.source.update(svid, bundles)
        log.info("SVID received", spiffe_id=svid.spiffe_id, not_after=svid.not_after)
        return True


@asynccontextmanager
async def fetched_identity(
    url: str, *, wait: float | None = None, clock: Clock | None = None
) -> AsyncIterator[SvidSource]:
    """Yield a source that the Workload API at ``url`` keeps up to date, once it holds an SVID.

    ``wait``: seconds to wait for the first SVID; None waits for ever. Raises TimedOut after that, and the
    API's own error where its answer is final.
    """
    async with Scope("workload api client", clock) as scope:
        source = SvidSource(clock=scope.clock)
        watch = WorkloadWatch(url, source)
        scope.spawn(watch.run(), name="workload api")
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
