"""LocalBypass: the registry is told the manager's URL, the node is told the endpoint's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.streams import Chosen
from nsmesh.model.messages import (
    Entry,
    Found,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    Query,
)


class LocalBypass(Element):
    """Replaces the URL of each endpoint of this node by the manager's own, and back in answers.

    ``url`` is the manager's URL as other nodes reach it. An entry with that URL whose name is not known here
    is from before a restart of this manager: nobody could be reached by it, so Find leaves it out until its
    endpoint registers again. One that a different manager has registered since is told as it is.

    After:  Begin
    Leaves: the real URL by endpoint name, until Unregister
    """

    after = ("Begin", "Expire")

    def __init__(self, url: str) -> None:
        self.url = url
        self._urls: dict[str, str] = {}
        self.changes = 0
        """How often a URL was learnt or forgotten."""

    def __len__(self) -> int:
        """Return how many endpoints of this node are known."""
        return len(self._urls)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Remember the endpoint's URL, register the manager's, answer with the endpoint's."""
        if not isinstance(entry, NetworkServiceEndpoint):
            return await next.register(call, entry)
        name, real = entry.name, entry.url
        before = self._urls.get(name)
        self.changes += 1
        self._urls[name] = real  # before the registry knows, since a watch may tell of it before the answer
        entry.url = self.url
        try:
            answer = await next.register(call, entry)
        except BaseException:
            self._restore(name, before)
            raise
        if isinstance(answer, NetworkServiceEndpoint):
            answer.url = real
        return answer

    def _restore(self, name: str, before: str | None) -> None:
        self.changes += 1
        if before is None:
            self._urls.pop(name, None)
        else:
            self._urls[name] = before

    def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:
        """Put real URLs into answers, leave out what cannot be reached."""
        found = next.find(call, query)
        return Chosen(found, self._reachable) if isinstance(query, NetworkServiceEndpointQuery) else found

    def _reachable(self, item: Found) -> bool:
        """Put the real URL into an answer; say whether it is to be told at all."""
        if not isinstance(item, NetworkServiceEndpointResponse):
            return True
        endpoint = item.network_service_endpoint
        if endpoint.url != self.url:
            return True
        real = self._urls.get(endpoint.name)
        if real is not None:
            endpoint.url = real
        return real is not None or item.deleted

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
            self.changes += 1
            self._urls.pop(entry.name, None)
