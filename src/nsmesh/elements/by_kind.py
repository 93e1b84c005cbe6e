"""ByKind: services go one way, endpoints another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from nsmesh.core.call import Call
from nsmesh.core.element import Chain, Element, Handler
from nsmesh.model.messages import (
    Entry,
    Found,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    Query,
)


class ByKind(Element):
    """Passes Register, Find and Unregister of services to one chain and of endpoints to another.

    Both chains run while this one runs. What is about connections goes on past them.
    """

    def __init__(self, services: Chain, endpoints: Chain) -> None:
        self.services = services
        self.endpoints = endpoints

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run both chains."""
        async with self.services.running(), self.endpoints.running():
            yield self

    def _of(self, entry: Entry) -> Handler:
        return self.endpoints if isinstance(entry, NetworkServiceEndpoint) else self.services

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:  # noqa: ARG002 - the face asks for it
        """Pass to the chain of the entry's kind."""
        return await self._of(entry).register(call, entry)

    def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:  # noqa: ARG002 - the face asks for it
        """Pass to the chain of the query's kind."""
        endpoints = isinstance(query, NetworkServiceEndpointQuery)
        return (self.endpoints if endpoints else self.services).find(call, query)

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:  # noqa: ARG002 - the face asks for it
        """Pass to the chain of the entry's kind."""
        await self._of(entry).unregister(call, entry)
