"""Remote peers as Handlers: the stub that turns verbs into calls, and the pool that reaches them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import DecodeError

from nsmesh import rpc
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Handler
from nsmesh.core.errors import Internal
from nsmesh.core.headers import ANSWERED
from nsmesh.core.observing import Headers, outgoing, watched
from nsmesh.core.passing import Passing
from nsmesh.core.tokens import OUTGOING
from nsmesh.model import methods
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    Entry,
    Found,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceEndpointResponse,
    NetworkServiceQuery,
    NetworkServiceRequest,
    NetworkServiceResponse,
    Query,
)


class RemotePeer:
    """The Handler of whoever is at the other end of one connection."""

    __slots__ = ("_client",)

    def __init__(self, client: rpc.Client) -> None:
        self._client = client

    @property
    def peer(self) -> Peer:
        """Who is there."""
        return self._client.wire.peer

    @property
    def url(self) -> str:
        """Where it is."""
        return self._client.url

    @property
    def client(self) -> rpc.Client:
        """The connection itself."""
        return self._client

    @property
    def passing(self) -> Passing | None:
        """Descriptors beside the messages, None over tcp."""
        return self._client.passing

    def _parse(self, kind: Any, body: bytes) -> Any:
        try:
            return kind.FromString(body)
        except DecodeError as error:
            name = kind.DESCRIPTOR.full_name
            raise Internal(f"{self.url} answered with something that is no {name}: {error}") from error

    async def _unary(self, call: Call, path: str, message: Any) -> bytes:
        client, body = self._client, message.SerializeToString()
        headers: Headers = call.get(OUTGOING) or ()
        if not watched():
            reply = await client.unary(path, body, metadata=headers, deadline=call.deadline)
        else:
            with outgoing(path, client.url, call, headers) as headers:
                reply = await client.unary(path, body, metadata=headers, deadline=call.deadline)
        answered = call.get(ANSWERED)
        if answered is not None:
            answered.update(reply.metadata)
        return reply.message

    def _stream(self, call: Call, path: str, message: Any, kind: Any) -> AsyncIterator[Any]:
        headers: Headers = call.get(OUTGOING) or ()
        bodies = self._client.stream(
            path, message.SerializeToString(), metadata=headers, deadline=call.deadline
        )
        return self._parsed(bodies, kind)

    async def _parsed(self, bodies: AsyncIterator[bytes], kind: Any) -> AsyncIterator[Any]:
        try:
            async for body in bodies:
                yield self._parse(kind, body)
        finally:
            end = getattr(bodies, "aclose", None)
            if end is not None:
                await end()

    async def request(self, call: Call, request: NetworkServiceRequest) -> Connection:
        """See :meth:`nsmesh.core.element.Handler.request`."""
        connection: Connection = self._parse(Connection, await self._unary(call, methods.REQUEST, request))
        return connection

    async def close(self, call: Call, connection: Connection) -> None:
        """See :meth:`nsmesh.core.element.Handler.close`."""
        await self._unary(call, methods.CLOSE, connection)

    def monitor(self, call: Call, selector: MonitorScopeSelector) -> AsyncIterator[ConnectionEvent]:
        """See :meth:`nsmesh.core.element.Handler.monitor`."""
        return self._stream(call, methods.MONITOR, selector, ConnectionEvent)

    async def register(self, call: Call, entry: Entry) -> Entry:
        """See :meth:`nsmesh.core.element.Handler.register`."""
        service = isinstance(entry, NetworkService)
        path = methods.SERVICE_REGISTER if service else methods.ENDPOINT_REGISTER
        stored: Entry = self._parse(type(entry), await self._unary(call, path, entry))
        return stored

    def find(self, call: Call, query: Query) -> AsyncIterator[Found]:
        """See :meth:`nsmesh.core.element.Handler.find`."""
        if isinstance(query, NetworkServiceQuery):
            return self._stream(call, methods.SERVICE_FIND, query, NetworkServiceResponse)
        return self._stream(call, methods.ENDPOINT_FIND, query, NetworkServiceEndpointResponse)

    async def unregister(self, call: Call, entry: Entry) -> None:
        """See :meth:`nsmesh.core.element.Handler.unregister`."""
        service = isinstance(entry, NetworkService)
        await self._unary(call, methods.SERVICE_UNREGISTER if service else methods.ENDPOINT_UNREGISTER, entry)


class RemotePeers:
    """Reaches peers by URL over one pool; a connection stays until it breaks."""

    def __init__(self, pool: rpc.Pool) -> None:
        self._pool = pool
        self._known: dict[str, RemotePeer] = {}

    async def get(self, url: str) -> Handler:
        """Return the Handler at ``url``; raises Unavailable at once where nobody listens."""
        return self._handler(url, await self._pool.get(url))

    def at_hand(self, url: str) -> Handler | None:
        """Return the Handler at ``url`` where it is connected already, else None."""
        client = self._pool.at_hand(url)
        return self._handler(url, client) if client is not None else None

    def leave(self, url: str) -> None:
        """End the connection to ``url``, and whatever waits there."""
        self._pool.cut(url)

    def renew(self, url: str) -> None:
        """Dial ``url`` anew for all calls that begin from now on."""
        self._pool.retire(url)

    def is_awaited(self, url: str) -> bool:
        """Say whether whoever served ``url`` has died, and somebody is to come."""
        return self._pool.is_awaited(url)

    def _handler(self, url: str, client: rpc.Client) -> Handler:
        known = self._known.get(url)
        if known is None or known.client is not client:
            known = self._known[url] = RemotePeer(client)
        return known


class LocalPeers:
    """Peers of which some live in this process: those are called in memory, at the URL they also serve.

    ``share`` false goes to their sockets all the same.
    """

    def __init__(self, local: dict[str, Handler], others: RemotePeers, *, share: bool = True) -> None:
        self.local = local
        self._others = others
        self._share = share

    async def get(self, url: str) -> Handler:
        """Return the role of this process that serves ``url``, else the remote peer."""
        return self.at_hand(url) or await self._others.get(url)

    def at_hand(self, url: str) -> Handler | None:
        """Return the role of this process that serves ``url``, else the remote peer that is connected."""
        here = self.local.get(url) if self._share else None
        return here or self._others.at_hand(url)

    def leave(self, url: str) -> None:
        """End the connection to ``url``; a role of this process stays reached."""
        self._others.leave(url)

    def renew(self, url: str) -> None:
        """Dial ``url`` anew for all calls that begin from now on."""
        self._others.renew(url)

    def is_awaited(self, url: str) -> bool:
        """Say whether whoever served ``url`` has died, and somebody is to come."""
        return self._others.is_awaited(url)
