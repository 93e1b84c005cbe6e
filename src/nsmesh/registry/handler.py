"""The end of a registry's chain: Register, Find and Unregister over two stores."""

from __future__ import annotations

from collections.abc import AsyncIterator

from nsmesh.core.call import Call
from nsmesh.core.errors import Invalid, Unimplemented
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    Entry,
    Found,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceRequest,
    Query,
)
from nsmesh.registry.query import E
from nsmesh.registry.store import Store


class Registry:
    """A Handler that answers from a store of services and a store of endpoints.

    A query without a body means everything, as one with an empty body does. An entry needs a name.
    """

    def __init__(self, services: Store[NetworkService], endpoints: Store[NetworkServiceEndpoint]) -> None:
        self.services = services
        self.endpoints = endpoints

    async def request(self, call: Call, request: NetworkServiceRequest) -> Connection:  # noqa: ARG002 - the face asks for it
        """Refuse: a registry makes no connections."""
        raise _no_connections("Request")

    async def close(self, call: Call, connection: Connection) -> None:  # noqa: ARG002 - the face asks for it
        """Refuse: a registry has no connections."""
        raise _no_connections("Close")

    async def monitor(
        self,
        call: Call,  # noqa: ARG002 - the face asks for it
        selector: MonitorScopeSelector,  # noqa: ARG002 - the face asks for it
    ) -> AsyncIterator[ConnectionEvent]:
        """Refuse: a registry has no connections."""
        raise _no_connections("MonitorConnections")
        yield ConnectionEvent()  # pragma: no cover - makes this a generator

    async def register(self, call: Call, entry: Entry) -> Entry:  # noqa: ARG002 - the face asks for it
        """Store ``entry`` in place of what has its name; raises Invalid without a name."""
        if isinstance(entry, NetworkServiceEndpoint):
            return await _put(self.endpoints, entry)
        return await _put(self.services, entry)

    def find(self, call: Call, query: Query) -> AsyncIterator[Found]:  # noqa: ARG002 - the face asks for it
        """Yield what matches; with ``watch`` also every later change, until cancelled."""
        if isinstance(query, NetworkServiceEndpointQuery):
            return _find(self.endpoints, query.network_service_endpoint, watch=query.watch)
        return _find(self.services, query.network_service, watch=query.watch)

    async def unregister(self, call: Call, entry: Entry) -> None:  # noqa: ARG002 - the face asks for it
        """Remove what has the name of ``entry``, if anything has; raises Invalid without a name."""
        if not entry.name:
            raise _no_name("Unregister", entry)
        if isinstance(entry, NetworkServiceEndpoint):
            await self.endpoints.remove(entry.name)
        else:
            await self.services.remove(entry.name)


async def _put(store: Store[E], entry: E) -> E:
    if not entry.name:
        raise _no_name("Register", entry)
    return copy_of(await store.put(entry))


async def _find(store: Store[E], template: E, *, watch: bool) -> AsyncIterator[Found]:
    found = store.kind.found
    if not watch:
        for entry in await store.list(template):
            yield found(entry)
        return
    changes = store.watch(template)
    try:
        async for change in changes:
            yield found(change.entry, deleted=change.deleted)
    finally:
        changes.close()


def _no_name(verb: str, entry: Entry) -> Invalid:
    word = "endpoint" if isinstance(entry, NetworkServiceEndpoint) else "network service"
    return Invalid(f"the {word} of this {verb} has no name", remedy="set its name")


def _no_connections(verb: str) -> Unimplemented:
    return Unimplemented(
        f"a registry does not serve {verb}", remedy="send it to a manager, forwarder or endpoint"
    )
