"""Authorize: nobody asks for a connection in another's name, or gets one from somebody else than he asked."""

from __future__ import annotations

from collections.abc import Sequence

from nsmesh.core.begin import OWN
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, Handler
from nsmesh.core.peering import DIALLED, peer_of
from nsmesh.model.messages import Connection, NetworkServiceRequest, PathSegment
from nsmesh.security.policy import CLIENT_POLICIES, SERVER_POLICIES, authorize, select
from nsmesh.security.rules import Question
from nsmesh.security.token import TokenReader


class _Policies(Element):
    def __init__(self, masks: Sequence[str], reader: TokenReader | None) -> None:
        self._policies = select(masks)
        self._reader = reader or TokenReader()

    def _authorize(self, segments: Sequence[PathSegment], index: int, peer: Peer) -> None:
        question = Question(
            tokens=[segment.token for segment in segments],
            index=index,
            certificate=peer.certificate,
            peer=peer.spiffe_id,
            now=self.scope.clock.now(),
            reader=self._reader,
            names=[segment.name for segment in segments],
        )
        authorize(self._policies, question)


class Authorize(_Policies):
    """Asks the policies about the left part of the path: from its beginning to our own segment.

    Roles of this process prove nothing to each other, nor do our own re-requests and Closes. ``masks`` select
    the policies; ``reader`` may be shared with others, so that each token is read once per process.

    After:  UpdatePath, Begin, UpdateToken
    Reads:  path; who calls
    Close:  asks them, too: about the stored path, in which the caller's segment has its newest token
    """

    after = ("UpdatePath", "Begin", "UpdateToken")

    def __init__(self, masks: Sequence[str] = SERVER_POLICIES, *, reader: TokenReader | None = None) -> None:
        super().__init__(masks, reader)

    def _check(self, call: Call, connection: Connection) -> None:
        if call.peer.in_process or call.get(OWN):
            return
        path = connection.path
        self._authorize(path.path_segments[: path.index + 1], path.index, call.peer)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Ask, then pass on."""
        self._check(call, request.connection)
        return await next.request(call, request)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Ask, then pass on."""
        self._check(call, connection)
        await next.close(call, connection)


class AuthorizeClient(_Policies):
    """Asks the policies about the whole path that came back, and who answered.

    A refused first answer is closed again by ``BeginClient``, which undoes every failed first Request.

    After:  BeginClient, Dial
    Reads:  path; DIALLED
    Close:  passes on first, then asks them about the path that was closed
    """

    after = ("Begin", "BeginClient", "Dial")

    def __init__(self, masks: Sequence[str] = CLIENT_POLICIES, *, reader: TokenReader | None = None) -> None:
        super().__init__(masks, reader)

    def _check(self, call: Call, connection: Connection, index: int) -> None:
        handler = call.get(DIALLED)
        peer = peer_of(handler) if handler is not None else Peer()
        if not peer.in_process:
            self._authorize(connection.path.path_segments, index, peer)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then ask."""
        index = request.connection.path.index
        connection = await next.request(call, request)
        self._check(call, connection, index)
        return connection

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on, then ask: a path whose tokens have expired is closed, and the caller hears of it."""
        index = connection.path.index
        closed = Connection()
        closed.CopyFrom(connection)
        await next.close(call, connection)
        self._check(call, closed, index)
