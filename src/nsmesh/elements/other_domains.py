"""OtherDomains: what names another domain (``x@domain``) is the concern of another registry."""

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


class OtherDomains(Element):
    """Passes Register, Find and Unregister to ``elsewhere`` where a name in them has an ``@``.

    Of an endpoint its own name or that of one of its services. Names go as they are, and nothing of it is
    kept here. That chain runs while this one runs. All else goes on.

    After:  RegistryPath, RegistryAuthorize
    """

    after = ("RegistryPath", "RegistryAuthorize")

    def __init__(self, elsewhere: Chain) -> None:
        self.elsewhere = elsewhere

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run the chain that leads there."""
        async with self.elsewhere.running():
            yield self

    def _of(self, entry: Entry, next: Handler) -> Handler:
        names = [entry.name]
        if isinstance(entry, NetworkServiceEndpoint):
            names += entry.network_service_names
        return self.elsewhere if any("@" in name for name in names) else next

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Pass to where the entry belongs."""
        return await self._of(entry, next).register(call, entry)

    def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:
        """Pass to where what is looked for belongs."""
        if isinstance(query, NetworkServiceEndpointQuery):
            return self._of(query.network_service_endpoint, next).find(call, query)
        return self._of(query.network_service, next).find(call, query)

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Pass to where the entry belongs."""
        await self._of(entry, next).unregister(call, entry)
