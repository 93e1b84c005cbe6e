"""OtherDomains: what names another domain (``x@domain``) is the concern of another registry."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from nsmesh.core.call import Call
from nsmesh.core.element import Chain, Element, Handler
from nsmesh.core.errors import Invalid
from nsmesh.core.tokens import OUTGOING
from nsmesh.model.messages import (
    Entry,
    Found,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    Query,
)

PASSED_BY = "nsmesh-passed-by"
"""The header that names, by random ids, the registries that have passed a call on."""
MOST = 16
"""Registries that may pass a call on."""


class OtherDomains(Element):
    """Passes Register, Find and Unregister to ``elsewhere`` where a name in them has an ``@``.

    Of an endpoint its own name or that of one of its services. Names go as they are, and nothing of it is
    kept here. That chain runs while this one runs. All else goes on. A name that has been here already goes
    round, since registries name each other, and is refused: the header :data:`PASSED_BY` knows.

    After:  RegistryPath, RegistryAuthorize
    Writes: OUTGOING
    """

    after = ("RegistryPath", "RegistryAuthorize")

    def __init__(self, elsewhere: Chain) -> None:
        self.elsewhere = elsewhere
        self._own = uuid.uuid4().hex

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run the chain that leads there."""
        async with self.elsewhere.running():
            yield self

    def _of(self, call: Call, entry: Entry, next: Handler) -> tuple[Call, Handler]:
        """Return whom to ask, and how; raises Invalid for a name that goes round."""
        names = [entry.name]
        if isinstance(entry, NetworkServiceEndpoint):
            names += entry.network_service_names
        foreign = [name for name in names if "@" in name]
        if not foreign:
            return call, next
        passed = call.header(PASSED_BY)
        if self._own in passed or len(passed) >= MOST:
            raise Invalid(
                f"{foreign[0]} has come round: {len(passed)} registries have passed it on",
                remedy="let no two registries name each other in NSM_PROXY_REGISTRY_URL",
            )
        headers = tuple((PASSED_BY, by) for by in (*passed, self._own))
        return call.put(OUTGOING, (call.get(OUTGOING) or ()) + headers), self.elsewhere

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Pass to where the entry belongs."""
        call, handler = self._of(call, entry, next)
        return await handler.register(call, entry)

    def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:
        """Pass to where what is looked for belongs."""
        wanted: Entry
        if isinstance(query, NetworkServiceEndpointQuery):
            wanted = query.network_service_endpoint
        else:
            wanted = query.network_service
        call, handler = self._of(call, wanted, next)
        return handler.find(call, query)

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Pass to where the entry belongs."""
        call, handler = self._of(call, entry, next)
        await handler.unregister(call, entry)
