"""Mirror: answers Find from a copy of the registry that one watch keeps up to date."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Entry,
    Found,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    Query,
)
from nsmesh.registry.query import ENDPOINT, SERVICE
from nsmesh.registry.reflection import Reflection


class Mirror(Element):
    """Keeps one watch on all services and one on all endpoints of the next handler, and answers from them.

    A Find goes on to the next handler where the copy cannot be sure: while it is not synchronised, when it
    would find nothing, for an entry that this process has changed and that the watch has not told of yet, and
    for names of other domains (``x@domain``), which no watch of this registry shows. When the watch breaks
    the copy is thrown away at once and the watches that were answered from it end, so that those who follow
    them ask again. An entry past its expiration time is not served.

    The first Find of a kind starts its watch.

    After:  Begin, Expire, LocalBypass
    Leaves: two watches
    """

    after = ("Begin", "Expire", "LocalBypass")

    def __init__(self) -> None:
        self.services: Reflection[NetworkService] = Reflection(SERVICE)
        self.endpoints: Reflection[NetworkServiceEndpoint] = Reflection(ENDPOINT)

    @property
    def synchronised(self) -> tuple[bool, bool]:
        """Return whether services, and endpoints, are answered from memory."""
        return self.services.synchronised, self.endpoints.synchronised

    def version(self) -> int | None:
        """Return a number that changes with every change, or None where not all is sure, see ``Lookup``."""
        if self.services.sure and self.endpoints.sure:
            return self.services.changes + self.endpoints.changes
        return None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Forget everything on leaving; the scope ends the watches."""
        try:
            yield self
        finally:
            self.services.stop()
            self.endpoints.stop()

    def _of(self, message: Entry | Query) -> Reflection[Any]:
        endpoints = isinstance(message, NetworkServiceEndpoint | NetworkServiceEndpointQuery)
        return self.endpoints if endpoints else self.services

    def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:
        """Answer from memory, or pass on."""
        reflection = self._of(query)
        if reflection.idle and self.scope.running:
            reflection.start(next, self.scope)
        return reflection.find(call, query, next, self.scope.clock)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Pass on; until the watch tells of it, questions that it touches go to the registry."""
        answer = await next.register(call, entry)
        reflection = self._of(answer)
        reflection.expect(answer.name, copy_of(answer), self.scope.clock)
        return answer

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Pass on; until the watch tells of it, questions that it touches go to the registry."""
        name = entry.name
        await next.unregister(call, entry)
        self._of(entry).expect(name, None, self.scope.clock)
