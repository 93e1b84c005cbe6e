"""ClientToken: a token for whoever was reached, in our segment and in the headers of each call."""

from __future__ import annotations

from collections.abc import AsyncIterator

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.peering import DIALLED, closing, peer_of
from nsmesh.core.tokens import OUTGOING, TokenSource, token_headers
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    Entry,
    Found,
    MonitorScopeSelector,
    NetworkServiceRequest,
    Query,
)
from nsmesh.model.times import set_timestamp


class ClientToken(Element):
    """Mints a token addressed to the peer behind the dial; the stub sends it with every verb.

    A role of this process gets no headers: it reads our segment. A peer without identity gets none either.

    After:  Dial
    Reads:  DIALLED
    Writes: token and expires of our segment; OUTGOING in the call
    Close:  the same
    """

    after = ("Dial",)

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens

    def _mint(self, call: Call) -> tuple[str, float, Call]:
        handler = call.get(DIALLED)
        if handler is None:
            return "", 0.0, call
        peer = peer_of(handler)
        token, expires = self._tokens.mint(peer)
        if token and not peer.in_process:
            call = call.put(OUTGOING, (call.get(OUTGOING) or ()) + token_headers(token, expires))
        return token, expires, call

    def _update(self, call: Call, connection: Connection) -> Call:
        token, expires, call = self._mint(call)
        path = connection.path
        if expires and path.index < len(path.path_segments):
            segment = path.path_segments[path.index]
            segment.token = token
            set_timestamp(segment.expires, expires)
        return call

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Mint, pass on."""
        return await next.request(self._update(call, request.connection), request)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Mint, pass on."""
        await next.close(self._update(call, connection), connection)

    async def monitor(
        self, call: Call, selector: MonitorScopeSelector, next: Handler
    ) -> AsyncIterator[ConnectionEvent]:
        """Mint, pass on."""
        async with closing(next.monitor(self._mint(call)[2], selector)) as events:
            async for event in events:
                yield event

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Mint, pass on."""
        return await next.register(self._mint(call)[2], entry)

    async def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:
        """Mint, pass on."""
        async with closing(next.find(self._mint(call)[2], query)) as found:
            async for item in found:
                yield item

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Mint, pass on."""
        await next.unregister(self._mint(call)[2], entry)
