"""What the roles of one process share: connections to peers, tokens, identity, time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from nsmesh import rpc
from nsmesh.chains.secured import Secured
from nsmesh.chains.settings_common import Common
from nsmesh.chains.workload_client import fetched_identity
from nsmesh.core.clock import Clock, SystemClock
from nsmesh.core.element import Element, Handler
from nsmesh.core.ending import hands_over
from nsmesh.core.errors import Invalid
from nsmesh.core.identity import Identity
from nsmesh.core.journalling import Journal
from nsmesh.core.observing import observed_role
from nsmesh.core.tokens import PlainTokens, TokenSource
from nsmesh.elements import serve
from nsmesh.elements.peer import LocalPeers, RemotePeers
from nsmesh.security.policy import REGISTRY_CLIENT_POLICIES, REGISTRY_SERVER_POLICIES

log = structlog.get_logger()


OURSELVES = 0o600
"""Mode of a unix socket that only our own user, and root, reach."""
EVERYBODY = 0o666
"""Mode of one where all may ask, and each gets what its credentials are entitled to."""
DRAIN = 2.0
"""Seconds that a role that ends gives the calls that it serves."""
SHORT_DRAIN = 0.2
"""The same before a successor, whom those who are cut off ask again. Some wait for it in any case: a Request
that is served here and looks something up on its way, over this very process."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Given to every role of a process. ``peers.local`` maps the URLs that this process serves."""

    peers: LocalPeers
    tokens: TokenSource
    secured: Secured | None = None
    clock: Clock = field(default_factory=SystemClock)
    journal: Journal | None = None
    """What the roles of this process keep beyond its end."""
    servers: set[rpc.Server] = field(default_factory=set)
    """What this process serves just now."""

    single: bool = False
    """Whether this process has one role, for which is all that was passed to it."""

    @property
    def identity(self) -> Identity | None:
        """Who we are on the wire; None: plain unix sockets of our own user only."""
        return self.secured.identity if self.secured else None

    def policies(self, masks: Sequence[str] = ()) -> tuple[Element, ...]:
        """Return what stands behind UpdateToken in a server chain; ``masks`` select policies of users."""
        return self.secured.policies(masks) if self.secured else ()

    def checks(self) -> tuple[Element, ...]:
        """Return what stands behind Dial in a client's chain."""
        return self.secured.checks() if self.secured else ()

    def registry_front(
        self, masks: Sequence[str] = REGISTRY_SERVER_POLICIES, *, recorded: bool = False
    ) -> tuple[Element, ...]:
        """Return what stands outermost in a registry, and in a manager's view of one.

        ``recorded``: its memory is shared with other processes, and says whose each name is.
        """
        return self.secured.registry_front(masks, recorded=recorded) if self.secured else ()

    def registry_checks(self, masks: Sequence[str] = REGISTRY_CLIENT_POLICIES) -> tuple[Element, ...]:
        """Return what stands behind Dial in whatever registers or passes registrations on."""
        return self.secured.registry_checks(masks) if self.secured else ()


@asynccontextmanager
async def runtime(
    *,
    lifetime: float,
    dial_timeout: float,
    share: bool = True,
    single: bool = False,
    workload_api: str = "",
    journal: str = "",
) -> AsyncIterator[Runtime]:
    """Hold identity and connections of one process; ``lifetime`` (seconds): an unrefreshed wire's life.

    ``single``: the process has one role. ``share`` false makes roles of this process talk over their
    sockets, as if they were apart.
    ``journal`` is a file; empty: nothing outlives this process.
    ``workload_api`` is the URL of the SPIFFE Workload API that says who we are; empty: nobody needs to know.
    """
    clock = SystemClock()
    local: dict[str, Handler] = {}
    async with AsyncExitStack() as stack:
        secured = None
        if workload_api:
            source = await stack.enter_async_context(fetched_identity(workload_api, clock=clock))
            secured = Secured(source, lifetime=lifetime, clock=clock)
        pool = rpc.Pool(timeout=dial_timeout, identity=secured.identity if secured else None)
        stack.push_async_callback(_close, pool)
        kept = None
        if journal:
            from nsmesh.journal.file import FileJournal  # noqa: PLC0415 - SQLite, where something is kept

            kept = stack.enter_context(FileJournal(Path(journal)))
        yield Runtime(
            peers=LocalPeers(local, RemotePeers(pool), share=share),
            tokens=secured.tokens if secured else PlainTokens(clock, lifetime),
            secured=secured,
            clock=clock,
            journal=kept,
            single=single,
        )


async def _close(pool: rpc.Pool) -> None:
    await pool.aclose(0.0 if hands_over() else 1.0)


def runtime_of(settings: Common, dial_timeout: float) -> AbstractAsyncContextManager[Runtime]:
    """Return the runtime of a process that holds one role, as its settings say."""
    return runtime(
        lifetime=settings.max_token_lifetime,
        dial_timeout=dial_timeout,
        single=True,
        workload_api=settings.spiffe_endpoint_socket,
        journal=settings.journal,
    )


@asynccontextmanager
async def served(
    runtime: Runtime,
    urls: tuple[str, ...],
    handler: Handler,
    *,
    connections: bool = True,
    registry: bool = False,
    extra: Mapping[str, rpc.Method] | None = None,
    everybody: bool = False,
    together: float = math.inf,
) -> AsyncIterator[list[str]]:
    """Serve ``handler`` at ``urls`` (and in memory, to roles of this process); yield the real URLs.

    On leaving nothing more is accepted, and calls that run have a while to be answered. ``everybody``: also
    processes of other users reach the unix sockets, where each has to show a certificate. ``together``: see
    :func:`nsmesh.rpc.serve`.

    Raises Invalid for a tcp URL without an identity, and for ``everybody`` without one.
    """
    if everybody and runtime.identity is None:
        raise Invalid(
            "the sockets would be open to everybody on this host: this role has no identity",
            remedy="set SPIFFE_ENDPOINT_SOCKET to a Workload API, or NSM_OPEN_SOCKET to false",
        )
    mode = EVERYBODY if everybody else OURSELVES
    for url in urls:
        if runtime.identity is None and not url.startswith("unix:"):
            raise Invalid(
                f"{url} would be open to everybody on the network: this role has no identity",
                remedy="set SPIFFE_ENDPOINT_SOCKET to a Workload API, or listen on unix sockets only",
            )
    handler = observed_role(getattr(handler, "name", ""), handler)
    methods: dict[str, rpc.Method] = {}
    if connections:
        methods |= serve.connections(handler, runtime.secured.reader if runtime.secured else None)
    if registry:
        methods |= serve.registry(handler)
    methods |= serve.health(methods)
    methods |= extra or {}
    async with AsyncExitStack() as stack:
        real, served = [], []
        for url in urls:
            server = await stack.enter_async_context(
                rpc.serve(url, methods, identity=runtime.identity, socket_mode=mode, together=together)
            )
            runtime.servers.add(server)
            stack.callback(runtime.servers.discard, server)
            served.append(server)
            real.append(server.url)
            runtime.peers.local[server.url] = handler
        for url in rpc.unclaimed() if runtime.single else ():
            log.warning(
                "a socket was passed to this process, and it serves another address",
                socket=url,
                serves=real,
                remedy="let NSM_LISTEN_ON and the socket unit name the same address",
            )
        try:
            yield real
        finally:
            for url in real:
                runtime.peers.local.pop(url, None)
            if hands_over():
                rpc.leave([server.listener for server in served])
            grace = SHORT_DRAIN if hands_over() else DRAIN
            await asyncio.gather(*(server.drain(grace) for server in served))
