"""Two handlers behind one face: connections here, registries there."""

from __future__ import annotations

from collections.abc import AsyncIterator

from nsmesh.core.call import Call
from nsmesh.core.element import Handler
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    Entry,
    Found,
    MonitorScopeSelector,
    NetworkServiceRequest,
    Query,
)


class Both:
    """A manager is both: what makes connections, and what a node sees of the registry."""

    def __init__(self, connections: Handler, registry: Handler) -> None:
        self.connections = connections
        self.registry = registry

    @property
    def name(self) -> str:
        """Name of the role."""
        return str(getattr(self.connections, "name", ""))

    async def request(self, call: Call, request: NetworkServiceRequest) -> Connection:
        """Pass to the connections' side."""
        return await self.connections.request(call, request)

    async def close(self, call: Call, connection: Connection) -> None:
        """Pass to the connections' side."""
        await self.connections.close(call, connection)

    def monitor(self, call: Call, selector: MonitorScopeSelector) -> AsyncIterator[ConnectionEvent]:
        """Pass to the connections' side."""
        return self.connections.monitor(call, selector)

    async def register(self, call: Call, entry: Entry) -> Entry:
        """Pass to the registry's side."""
        return await self.registry.register(call, entry)

    def find(self, call: Call, query: Query) -> AsyncIterator[Found]:
        """Pass to the registry's side."""
        return self.registry.find(call, query)

    async def unregister(self, call: Call, entry: Entry) -> None:
        """Pass to the registry's side."""
        await self.registry.unregister(call, entry)
