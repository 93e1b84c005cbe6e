"""What the roles of one process share: connections to peers, tokens, identity, time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from nsmesh import rpc
from nsmesh.core.clock import Clock, SystemClock
from nsmesh.core.element import Handler
from nsmesh.core.identity import Identity
from nsmesh.core.tokens import PlainTokens, TokenSource
from nsmesh.elements import serve
from nsmesh.elements.peer import LocalPeers, RemotePeers


@dataclass(frozen=True, slots=True)
class Runtime:
    """Given to every role of a process. ``peers.local`` maps the URLs that this process serves."""

    peers: LocalPeers
    tokens: TokenSource
    identity: Identity | None = None
    clock: Clock = field(default_factory=SystemClock)


@asynccontextmanager
async def runtime(*, lifetime: float, dial_timeout: float, share: bool = True) -> AsyncIterator[Runtime]:
    """Hold the connections of one process; ``lifetime`` (seconds) is what an unrefreshed wire lives.

    ``share`` false makes roles of this process talk over their sockets, as if they were apart.
    """
    clock = SystemClock()
    pool = rpc.Pool(timeout=dial_timeout)
    local: dict[str, Handler] = {}
    try:
        yield Runtime(
            peers=LocalPeers(local, RemotePeers(pool), share=share),
            tokens=PlainTokens(clock, lifetime),
            clock=clock,
        )
    finally:
        await pool.aclose()


@asynccontextmanager
async def served(
    runtime: Runtime,
    urls: tuple[str, ...],
    handler: Handler,
    *,
    connections: bool = True,
    registry: bool = False,
    extra: Mapping[str, rpc.Method] | None = None,
) -> AsyncIterator[list[str]]:
    """Serve ``handler`` at ``urls`` (and in memory, to roles of this process); yield the real URLs."""
    methods: dict[str, rpc.Method] = {}
    if connections:
        methods |= serve.connections(handler)
    if registry:
        methods |= serve.registry(handler)
    methods |= serve.health(methods)
    methods |= extra or {}
    async with AsyncExitStack() as stack:
        real = []
        for url in urls:
            server = await stack.enter_async_context(rpc.serve(url, methods, identity=runtime.identity))
            real.append(server.url)
            runtime.peers.local[server.url] = handler
        try:
            yield real
        finally:
            for url in real:
                runtime.peers.local.pop(url, None)
