"""The one read model: a manager's MonitorConnections and a registry's watches, kept as plain messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import structlog

from nsmesh.core.call import Call, Peer
from nsmesh.core.errors import MeshError
from nsmesh.core.peering import Peers, closing
from nsmesh.core.scope import Scope
from nsmesh.model.messages import (
    Connection,
    ConnectionEventType,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceQuery,
    Query,
)

log = structlog.get_logger()

AGAIN = 0.2
"""Seconds between a broken stream and the next try."""


class ReadModel:
    """Follows one manager and one registry at their URLs; a stream that breaks is opened again."""

    def __init__(self, scope: Scope, peers: Peers, manager: str, registry: str) -> None:
        self.scope = scope
        self._peers = peers
        self._manager = manager
        self._registry = registry
        self.services: dict[str, NetworkService] = {}
        self.endpoints: dict[str, NetworkServiceEndpoint] = {}
        self.connections: dict[str, Connection] = {}
        self.since: dict[str, float] = {}
        self._listeners: set[asyncio.Queue[tuple[str, str, bool]]] = set()

    def start(self) -> None:
        """Begin to follow; ends with the scope."""
        self.scope.spawn(self._follow("connections", self._connections), name="read model: connections")
        self.scope.spawn(self._follow("services", self._services), name="read model: services")
        self.scope.spawn(self._follow("endpoints", self._endpoints), name="read model: endpoints")

    def tell(self, kind: str, name: str, *, deleted: bool = False) -> None:
        """Tell the listeners that something changed."""
        for queue in self._listeners:
            queue.put_nowait((kind, name, deleted))

    async def changes(self) -> AsyncIterator[tuple[str, str, bool]]:
        """Yield (kind, name, deleted) for each change from now on."""
        queue: asyncio.Queue[tuple[str, str, bool]] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    async def _follow(self, what: str, once: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await once()
            except MeshError as error:
                log.debug("read model: stream broke", what=what, error=str(error))
            await asyncio.sleep(AGAIN)

    async def _connections(self) -> None:
        call = Call(peer=Peer(in_process=True))
        manager = await self._peers.get(self._manager)
        async with closing(manager.monitor(call, MonitorScopeSelector())) as events:
            async for event in events:
                if event.type == ConnectionEventType.INITIAL_STATE_TRANSFER:
                    for gone in set(self.connections) - set(event.connections):
                        self._forget(gone)
                for key, connection in event.connections.items():
                    if event.type == ConnectionEventType.DELETE:
                        self._forget(key)
                    else:
                        self._keep(key, connection)

    def _keep(self, key: str, connection: Connection) -> None:
        copy = Connection()
        copy.CopyFrom(connection)
        self.connections[key] = copy
        self.since.setdefault(key, self.scope.clock.now())
        self.tell("connections", key)

    def _forget(self, key: str) -> None:
        if key in self.connections:
            self.tell("connections", key, deleted=True)
            del self.connections[key]
            self.since.pop(key, None)

    async def _services(self) -> None:
        await self._entries(NetworkServiceQuery(watch=True), self.services, "services")

    async def _endpoints(self) -> None:
        await self._entries(NetworkServiceEndpointQuery(watch=True), self.endpoints, "endpoints")

    async def _entries(self, query: Query, known: dict[str, Any], kind: str) -> None:
        call = Call(peer=Peer(in_process=True))
        registry = await self._peers.get(self._registry)
        known.clear()
        async with closing(registry.find(call, query)) as found:
            async for item in found:
                entry: Any = getattr(
                    item, "network_service" if kind == "services" else "network_service_endpoint"
                )
                if item.deleted:
                    known.pop(entry.name, None)
                else:
                    known[entry.name] = entry
                self.tell(kind, entry.name, deleted=item.deleted)
