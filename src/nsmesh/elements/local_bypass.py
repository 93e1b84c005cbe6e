"""LocalBypass: the registry is told the manager's URL, the node is told the endpoint's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.journalling import Journal, Record
from nsmesh.core.peering import closing
from nsmesh.core.streams import Chosen
from nsmesh.model.messages import (
    Entry,
    Found,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    Query,
)
from nsmesh.rpc.files import HELD
from nsmesh.rpc.refound import found, note_of

log = structlog.get_logger()

AGAIN = 120.0
"""Seconds that endpoints have to register again after a restart; their entries end within a minute or so."""

_PASSED = b"passed"
"""What is kept of one that came as a descriptor, besides the note by which it is found again."""


class LocalBypass(Element):
    """Replaces the URL of each endpoint of this node by the manager's own, and back in answers.

    ``url`` is the manager's URL as other nodes reach it. What is learnt is kept in the ``journal``, so that a
    manager that starts again reaches its node's endpoints at once. An entry with that URL whose name is not
    known here is from before a restart without a journal: nobody could be reached by it, so Find leaves it
    out until its endpoint registers again. One that another manager has registered since is told as it is.

    What is of another domain (``x@domain``) may be told with the URL of a proxy, that led there, in place of
    ours. So once one has registered it is looked up, and is ours as long as it is told like that; before that
    is known, by its name alone.

    After:  Begin
    Leaves: the real URL by endpoint name, and how those of other domains are told, until Unregister; after a
            restart, who does not register again within :data:`AGAIN` is forgotten
    """

    after = ("Begin", "Expire")

    def __init__(self, url: str, journal: Journal | None = None) -> None:
        self.url = url
        self._journal = journal
        self._chain = f"endpoints behind {url}"
        self._urls: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._doubtful: set[str] = set()
        self.changes = 0
        """How often a URL was learnt or forgotten."""

    def __len__(self) -> int:
        """Return how many endpoints of this node are known."""
        return len(self._urls)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Take up what an earlier process of ours knew."""
        if self._journal is not None:
            for name, record in self._journal.records(self._chain).items():
                url = found(record.peer, (self, name)) if record.connection == _PASSED else record.peer
                if url:
                    self._urls[name] = url
                else:
                    self._journal.drop(self._chain, name)
            self._doubtful = set(self._urls)
            if self._doubtful:
                self.scope.after(AGAIN, self._doubt)
        try:
            yield self
        finally:
            for name in self._urls:
                HELD.release((self, name))

    def _doubt(self) -> None:
        """Forget whom nobody has registered since we started."""
        for name in self._doubtful:
            self._put(name, None)
            HELD.release((self, name))
        self._doubtful.clear()

    def _put(self, name: str, real: str | None) -> None:
        """Learn or forget where an endpoint is."""
        self.changes += 1
        if real is None:
            self._urls.pop(name, None)
            self._told.pop(name, None)
        else:
            self._urls[name] = real
        if self._journal is None:
            return
        if real is None:
            self._journal.drop(self._chain, name)
        elif note := note_of(real):
            self._journal.put(self._chain, name, Record(_PASSED, b"", note, {}))
        elif not real.startswith("unix:///proc/"):  # a descriptor without a path ends with us
            self._journal.put(self._chain, name, Record(b"", b"", real, {}))

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Remember the endpoint's URL, register the manager's, answer with the endpoint's."""
        if not isinstance(entry, NetworkServiceEndpoint):
            return await next.register(call, entry)
        name, given = entry.name, entry.url
        before = self._urls.get(name)
        self._doubtful.discard(name)
        self._put(name, given)  # before the registry knows, since a watch may tell of it before the answer
        entry.url = self.url
        try:
            answer = await next.register(call, entry)
        except BaseException:
            self._put(name, before)
            raise
        if isinstance(answer, NetworkServiceEndpoint):
            answer.url = given
        if _elsewhere(entry) and (before != given or name not in self._told):
            await self._look_up(call, name, next)
        return answer

    async def _look_up(self, call: Call, name: str, next: Handler) -> None:
        """Learn how one of another domain is told; where that fails it is tried at the next Register."""
        query = NetworkServiceEndpointQuery(network_service_endpoint=NetworkServiceEndpoint(name=name))
        self._told.pop(name, None)
        try:
            async with closing(next.find(call, query)) as found:
                async for item in found:
                    if isinstance(item, NetworkServiceEndpointResponse):
                        self._told[name] = item.network_service_endpoint.url
        except MeshError as error:
            log.info("it is not known how an endpoint is told", endpoint=name, error=str(error))

    def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:
        """Put real URLs into answers, leave out what cannot be reached."""
        found = next.find(call, query)
        return Chosen(found, self._reachable) if isinstance(query, NetworkServiceEndpointQuery) else found

    def _reachable(self, item: Found) -> bool:
        """Put the real URL into an answer; say whether it is to be told at all."""
        if not isinstance(item, NetworkServiceEndpointResponse):
            return True
        endpoint = item.network_service_endpoint
        real = self._urls.get(endpoint.name)
        if endpoint.url != self.url:
            if real is not None and self._is_ours(endpoint):
                endpoint.url = real
            return True
        if real is not None:
            endpoint.url = real
        return real is not None or item.deleted

    def _is_ours(self, endpoint: NetworkServiceEndpoint) -> bool:
        """Whether one that we know under this name is meant by an answer with another URL than ours."""
        return _elsewhere(endpoint) and self._told.get(endpoint.name, endpoint.url) == endpoint.url

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Unregister an endpoint of this node; of an unknown one there is nothing to unregister.

        When the registry cannot be reached the endpoint stays known, so that it can be tried again.
        """
        if isinstance(entry, NetworkServiceEndpoint):
            if entry.name not in self._urls:
                return
            entry.url = self.url
        await next.unregister(call, entry)
        if isinstance(entry, NetworkServiceEndpoint):
            self._put(entry.name, None)
            HELD.release((self, entry.name))


def _elsewhere(endpoint: NetworkServiceEndpoint) -> bool:
    return any("@" in name for name in (endpoint.name, *endpoint.network_service_names))
