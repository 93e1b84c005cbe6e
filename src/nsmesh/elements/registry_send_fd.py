"""RegistrySendFd: endpoints' sockets travel as descriptors with registrations and findings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import NotFound, Unauthorized
from nsmesh.core.holding import Holding
from nsmesh.core.passing import PASSING, Passing, passing_at
from nsmesh.core.peering import DIALLED, closing
from nsmesh.model.fileurl import socket_path
from nsmesh.model.messages import Entry, Found, NetworkServiceEndpoint, NetworkServiceEndpointResponse, Query
from nsmesh.rpc.files import HELD, Files
from nsmesh.rpc.receiver import Receiver


def _send(endpoint: NetworkServiceEndpoint, path: str | None, passing: Passing) -> bool:
    """Send the socket of an endpoint on a unix socket, and name it by its inode; say whether it was sent.

    A path that cannot be opened here goes on as it is: it may lead somewhere for whoever reads it.
    """
    if path is None:
        return False
    try:
        endpoint.url = passing.send(path)
    except (NotFound, Unauthorized):
        return False
    return True


def _send_found(endpoint: NetworkServiceEndpoint, passing: Passing) -> bool:
    return _send(endpoint, socket_path(endpoint.url), passing)


class RegistrySendFd(Element):
    """The server half: sockets of this node that a Find tells go to the caller as descriptors.

    After:  Begin
    Reads:  PASSING
    Writes: URLs of the endpoints found
    """

    after = ("Begin", "Expire", "RegistryAuthorize")

    def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:
        """Pass on, send; what this process asks itself it is told as it is."""
        passing = call.get(PASSING)
        found = next.find(call, query)
        return found if passing is None else self._sending(found, passing)

    @staticmethod
    async def _sending(stream: AsyncIterator[Found], passing: Passing) -> AsyncIterator[Found]:
        async with closing(stream) as found:
            async for item in found:
                sent = (
                    isinstance(item, NetworkServiceEndpointResponse)
                    and not item.deleted
                    and _send_found(item.network_service_endpoint, passing)
                )
                yield item
                if sent:
                    await asyncio.sleep(0)  # let it go out, so that a long list does not queue up


class RegistrySendFdClient(Holding[Receiver]):
    """The client half: the socket of an endpoint that registers goes along as a descriptor.

    The socket that the path led to at the first Register is held, and is the one that later ones send too:
    meanwhile the path may lead to another process's. The answer has the URL as it was. To a role of this
    process nothing need be sent.

    After:  Dial
    Reads:  DIALLED
    Writes: URL of the endpoint; back in the answer
    Leaves: the socket, per endpoint
    Close:  Unregister lets go of it once it has succeeded
    """

    after = ("Dial",)

    def __init__(self, files: Files = HELD) -> None:
        super().__init__(Receiver(files))

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Send, pass on, name as before."""
        passing = passing_at(call.get(DIALLED))
        if passing is None or not isinstance(entry, NetworkServiceEndpoint):
            return await next.register(call, entry)
        own, name = entry.url, entry.name
        path = socket_path(own)
        held = self._held.take_up(name, path) if path is not None else None
        _send(entry, held or path, passing)
        sent = entry.url
        answer = await next.register(call, entry)
        if isinstance(answer, NetworkServiceEndpoint) and answer.url == sent:
            answer.url = own
        return answer

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Send, pass on, let go."""
        if not isinstance(entry, NetworkServiceEndpoint):
            await next.unregister(call, entry)
            return
        passing, name = passing_at(call.get(DIALLED)), entry.name
        path = socket_path(entry.url)
        if passing is not None:
            _send(entry, (path and self._held.taken_up(name, path)) or path, passing)
        await next.unregister(call, entry)
        self._held.release(name)
