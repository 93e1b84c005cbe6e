"""A gRPC server: listens, counts its connections, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from weakref import WeakSet

from nsmesh.core import metrics
from nsmesh.core.call import Peer
from nsmesh.core.errors import Exhausted, MeshError, Unanswered, Unauthorized, Unavailable
from nsmesh.core.identity import Identity
from nsmesh.core.scope import Scope
from nsmesh.rpc import engine as http2
from nsmesh.rpc import foreign, sockets, telling
from nsmesh.rpc.arrivals import Arrivals
from nsmesh.rpc.descriptors import SHARED, Descriptors
from nsmesh.rpc.door import Door
from nsmesh.rpc.limits import DEFAULT, Limits
from nsmesh.rpc.listener import Listener
from nsmesh.rpc.methods import Method
from nsmesh.rpc.server_connection import ServerConnection
from nsmesh.rpc.tls import Tls
from nsmesh.rpc.wire import Wire

_SERVERS: WeakSet[Server] = WeakSet()

TOLD = 0.25
"""Seconds that clients have to say that they know that we go away."""

HANDSHAKES = metrics.Counter(
    "nsm_rpc_handshakes", "Connections that were accepted, by how they began.", ("result",)
)
CONNECTIONS = metrics.Gauge(
    "nsm_rpc_connections", "Connections that are open, half-open ones included.", ("server",)
)


class Server:
    """Serves methods on one address; made by :func:`serve`.

    ``url``: where; with the real port where 0 was asked for. ``listener``: its socket.
    """

    def __init__(
        self,
        url: str,
        methods: Mapping[str, Method],
        *,
        identity: Identity | None = None,
        engine: str | None = None,
        limits: Limits = DEFAULT,
        socket_mode: int = 0o600,
        descriptors: Descriptors = SHARED,
        together: float = math.inf,
    ) -> None:
        self._together = together
        self._methods = methods
        self._identity = identity
        self._engine = engine
        self._limits = limits
        self._descriptors = descriptors
        self._everybody = bool(socket_mode & 0o006)
        self._loop = asyncio.get_running_loop()
        self.listener = Listener(url, socket_mode)
        self.url = self.listener.url
        self._door = Door(self.listener, self._accepted, self._say)
        self._scope = Scope(f"server {self.url}")
        self._connections: set[ServerConnection] = set()
        self._arrivals = Arrivals(limits.arrivals, limits.flood_window)
        self._half_open: dict[ServerConnection, object] = {}  # oldest first, with their origins
        self._changed = asyncio.Event()
        self._closed = False
        self._leaving = False
        self._forget_listener = identity.on_rotation(self.renew) if identity is not None else None

    def renew(self) -> None:
        """Ask clients for new connections: tokens of our new key do not go with the leaf that these showed.

        Calls that run go on, and a client closes its connection with the last of them.
        """
        for connection in self._connections - self._half_open.keys():
            connection.announce()

    @property
    def connections(self) -> int:
        """How many connections there are, half-open ones included."""
        return len(self._connections)

    @property
    def half_open(self) -> int:
        """How many connections have not finished their handshake."""
        return len(self._half_open)

    @property
    def running(self) -> int:
        """How many calls run."""
        return sum(connection.running for connection in self._connections)

    async def start(self) -> None:
        """Begin to accept."""
        await self._scope.__aenter__()
        self._door.open()
        _SERVERS.add(self)

    def _accepted(self, sock: socket.socket) -> None:
        if len(self._connections) >= self._limits.connections:
            self._say("refused a connection: too many", limit=self._limits.connections)
            foreign.close_socket(sock)
            return
        if len(self._half_open) >= self._limits.half_open:
            self._make_room()
        origin = sockets.origin(sock)
        if not self._arrivals.count(origin, self._loop.time()):
            self._say("a peer floods us", what="connections", where=sockets.name(sock))
            foreign.close_socket(sock)
            return
        engine = http2.make(self._engine, self._limits, client=False)
        connection = ServerConnection(
            self, self._methods, engine, self._limits, self._scope, self._descriptors
        )
        connection.together = self._together
        tls = Tls(self._identity, server=True) if self._identity is not None else None
        wire = Wire(
            sock,
            connection,
            where=f"a client of {self.url} ({sockets.name(sock)})",
            limits=self._limits,
            descriptors=self._descriptors,
            tls=tls,
        )
        stranger = wire.unix and tls is None and wire.peer.uid not in {0, os.geteuid()}
        if stranger and not self._everybody:
            self._say("refused a connection: another user, and no identity to ask for", uid=wire.peer.uid)
            foreign.close_socket(sock)
            return
        connection.wire = wire
        self._connections.add(connection)
        self._half_open[connection] = origin
        wire.start()

    def _make_room(self) -> None:
        """Drop one connection without a handshake: from where most come, a silent one first, the oldest."""
        origins = Counter(self._half_open.values())
        origin = max(origins, key=lambda one: origins[one])
        of_it = [connection for connection, one in self._half_open.items() if one == origin]
        dropped = next((connection for connection in of_it if not connection.wire.heard), of_it[0])
        self._say("closed a connection without handshake to make room", limit=self._limits.half_open)
        dropped.wire.abort(Unavailable("too many connections without a handshake", remedy="connect again"))

    def _say(self, text: str, **values: object) -> None:
        """Log, but not the same thing a thousand times."""
        telling.SHARED.warn(text, about=self.url, server=self.url, **values)

    @property
    def own(self) -> str:
        """Who we are: our SPIFFE ID, or our URL where there is none."""
        return self._identity.spiffe_id if self._identity is not None else self.url

    def grown(self) -> None:
        """End who makes us keep the most, while all connections together keep too much."""
        limit = self._limits.held_in_all
        kept = {connection: connection.kept for connection in self._connections}
        total = sum(kept.values())
        while total > limit and kept:
            greediest = max(kept, key=lambda one: kept[one])
            size = kept.pop(greediest)
            total -= size
            where = greediest.where
            self._say("ended the connection that keeps the most", where=where, bytes=size, limit=limit)
            greediest.calm(
                Exhausted(f"{where} makes us keep {size} bytes, the most of all", remedy="send less at once")
            )

    def end_peers(self, gone: Callable[[Peer], bool], why: MeshError) -> None:
        """End the connections, and the calls on them, of peers for whom ``gone`` is true."""
        for connection in [one for one in self._connections if gone(one.wire.peer)]:
            connection.wire.abort(why)

    def established(self, connection: ServerConnection) -> None:
        """Hear that a connection finished its handshake."""
        self._half_open.pop(connection, None)
        HANDSHAKES.add("ok")

    def lost(self, connection: ServerConnection, reason: MeshError) -> None:
        """Hear that a connection is over."""
        self._connections.discard(connection)
        if self._half_open.pop(connection, None) is not None and not self._closed:
            if isinstance(reason, Unanswered) and not connection.wire.heard:
                # who looks whether the port answers, such as a probe of Kubernetes every other second
                HANDSHAKES.add("silent")
                self._changed.set()
                return
            kind = (
                "refused a peer"
                if isinstance(reason, Unauthorized)
                else "a connection ended in its handshake"
            )
            HANDSHAKES.add("refused" if isinstance(reason, Unauthorized) else "broken")
            self._say(kind, at=self.own, where=connection.where, reason=str(reason))
        self._changed.set()

    def idle(self) -> None:
        """Hear that a connection has nothing left to do."""
        self._changed.set()

    async def aclose(self, grace: float = 0.0) -> None:
        """Accept nothing more, let running calls end for up to ``grace`` seconds, cancel the rest, close."""
        if self._closed:
            return
        self._closed = True
        self._say_goodbye()
        try:
            await self._until(lambda connection: connection.quiet, grace)
        finally:
            await self._finish()

    async def drain(self, grace: float) -> None:
        """Accept nothing more; calls with one answer have ``grace`` seconds to end. Then: ``aclose``.

        Streams are not waited for: who watches does so for ever.
        """
        self._say_goodbye()
        await self._until(lambda connection: connection.told, min(grace, TOLD))
        await self._until(lambda connection: not connection.answering, grace)

    def _say_goodbye(self) -> None:
        if self._leaving:
            return
        self._leaving = True
        _SERVERS.discard(self)
        if self._forget_listener is not None:
            self._forget_listener()
        self._door.close()
        for connection in list(self._connections):
            connection.announce()

    async def _until(self, settled: Callable[[ServerConnection], bool], seconds: float) -> None:
        """Wait until all connections are as they should be, but no longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(map(settled, self._connections)):
                    self._changed.clear()
                    await self._changed.wait()

    async def _finish(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.finish()
        await asyncio.gather(*(connection.wire.gone() for connection in connections))
        await self._scope.__aexit__(None, None, None)


def servers() -> list[Server]:
    """Return the servers of this process that take connections."""
    return list(_SERVERS)


@contextlib.asynccontextmanager
async def serve(
    url: str,
    methods: Mapping[str, Method],
    *,
    identity: Identity | None = None,
    engine: str | None = None,
    limits: Limits = DEFAULT,
    socket_mode: int = 0o600,
    descriptors: Descriptors = SHARED,
    together: float = math.inf,
) -> AsyncIterator[Server]:
    """Serve ``methods`` (by full path) at ``url`` while the block runs; TLS with an ``identity``.

    Without one, a unix socket takes only peers of our own user, or root, unless ``socket_mode`` lets others
    in: then the handlers look at their peer. Answers of one turn of the loop go out in one write, and within
    ``together`` seconds where it is long. Raises Conflict where a live server listens already,
    Unavailable, Invalid.
    """
    server = Server(
        url,
        methods,
        identity=identity,
        engine=engine,
        limits=limits,
        socket_mode=socket_mode,
        descriptors=descriptors,
        together=together,
    )
    await server.start()
    try:
        with CONNECTIONS.reading(lambda: {(server.url,): server.connections}):
            yield server
    finally:
        await server.aclose()
