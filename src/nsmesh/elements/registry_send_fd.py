"""RegistrySendFd: endpoints' sockets travel as descriptors with registrations and findings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import NotFound, Unauthorized
from nsmesh.core.passing import PASSING, Passing, passing_at
from nsmesh.core.peering import DIALLED, closing
from nsmesh.model.fileurl import socket_path
from nsmesh.model.messages import Entry, Found, NetworkServiceEndpoint, NetworkServiceEndpointResponse, Query


def _send(endpoint: NetworkServiceEndpoint, passing: Passing) -> bool:
    """Send the socket of an endpoint on a unix socket, and name it by its inode; say whether it was sent.

    A path that cannot be opened here goes on as it is: it may lead somewhere for whoever reads it.
    """
    path = socket_path(endpoint.url)
    if path is None:
        return False
    try:
        endpoint.url = passing.send(path)
    except (NotFound, Unauthorized):
        return False
    return True


class RegistrySendFd(Element):
    """The server half: sockets of this node that a Find tells go to the caller as descriptors.

    After:  Begin
    Reads:  PASSING
    Writes: URLs of the endpoints found
    """

    after = ("Begin", "Expire", "RegistryAuthorize")

    async def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:
        """Pass on, send."""
        passing = call.get(PASSING)
        async with closing(next.find(call, query)) as found:
            async for item in found:
                sent = (
                    passing is not None
                    and isinstance(item, NetworkServiceEndpointResponse)
                    and not item.deleted
                    and _send(item.network_service_endpoint, passing)
                )
                yield item
                if sent:
                    await asyncio.sleep(0)  # let it go out, so that a long list does not queue up


class RegistrySendFdClient(Element):
    """The client half: the socket of an endpoint that registers goes along as a descriptor.

    The answer has the URL as it was. To a role of this process nothing need be sent.

    After:  Dial
    Reads:  DIALLED
    Writes: URL of the endpoint; back in the answer
    """

    after = ("Dial",)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Send, pass on, name as before."""
        passing = passing_at(call.get(DIALLED))
        if passing is None or not isinstance(entry, NetworkServiceEndpoint):
            return await next.register(call, entry)
        own = entry.url
        _send(entry, passing)
        sent = entry.url
        answer = await next.register(call, entry)
        if isinstance(answer, NetworkServiceEndpoint) and answer.url == sent:
            answer.url = own
        return answer

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Send, pass on."""
        passing = passing_at(call.get(DIALLED))
        if passing is not None and isinstance(entry, NetworkServiceEndpoint):
            _send(entry, passing)
        await next.unregister(call, entry)
