"""The Workload API on a socket: where SPIFFE clients, the Go components among them, ask for SVIDs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from nsmesh import rpc
from nsmesh.chains.runtime import EVERYBODY
from nsmesh.core.call import Peer
from nsmesh.core.clock import Clock
from nsmesh.core.clock_steps import clock_steps
from nsmesh.core.scope import Scope
from nsmesh.security.workload_api import Metadata, WorkloadApi
from nsmesh.security.workload_names import SERVICE

log = structlog.get_logger()

MAINTENANCE = 3600.0
"""Seconds between two looks at the CA's rotation."""


def methods(api: WorkloadApi) -> dict[str, rpc.Method]:
    """Return the five methods, served by ``api``."""

    def unary(handler: Callable[[Metadata, Peer, bytes], Awaitable[bytes]]) -> rpc.Unary:
        return rpc.Unary(lambda call, message: handler(call.metadata, call.peer, message))

    def stream(handler: Callable[[Metadata, Peer, bytes], AsyncIterator[bytes]]) -> rpc.ServerStream:
        return rpc.ServerStream(lambda call, message: handler(call.metadata, call.peer, message))

    return {
        SERVICE + "FetchX509SVID": stream(api.fetch_x509_svid),
        SERVICE + "FetchX509Bundles": stream(api.fetch_x509_bundles),
        SERVICE + "FetchJWTSVID": unary(api.fetch_jwt_svid),
        SERVICE + "FetchJWTBundles": stream(api.fetch_jwt_bundles),
        SERVICE + "ValidateJWTSVID": unary(api.validate_jwt_svid),
    }


@asynccontextmanager
async def served_workload_api(
    api: WorkloadApi, url: str, *, clock: Clock | None = None
) -> AsyncIterator[rpc.Server]:
    """Serve ``api`` at ``url``, in plaintext as the standard has it, while the block runs.

    On tcp no caller can be told from another, and none gets anything: use a unix socket.
    """

    async def maintain() -> None:
        while True:
            api.maintain()
            await asyncio.sleep(MAINTENANCE)

    async def follow_clock(clock: Clock) -> None:
        async for step in clock_steps(clock):
            log.warning("the clock was set, or the machine slept: identities are made anew", seconds=step)
            api.clock_was_set()

    async with (
        Scope("workload api", clock) as scope,
        rpc.serve(url, methods(api), socket_mode=EVERYBODY) as server,
    ):
        scope.spawn(maintain(), name="rotation of the CA")
        scope.spawn(follow_clock(scope.clock), name="steps of the clock")
        log.info("Workload API ready", url=server.url)
        yield server
