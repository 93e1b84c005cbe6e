"""Authorize: nobody asks for a connection in another's name, or gets one from somebody else than he asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nsmesh.core.call import Call, Key, Peer
from nsmesh.core.codecs import TEXT
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError, Unauthorized
from nsmesh.core.life import ASKED, DENIED, OWN
from nsmesh.core.peering import DIALLED, peer_of
from nsmesh.model.messages import Connection, NetworkServiceRequest, PathSegment
from nsmesh.model.path import renew_tokens
from nsmesh.model.times import seconds
from nsmesh.security.jws import BadToken
from nsmesh.security.policy import CLIENT_POLICIES, REFUSALS, REFUSED, SERVER_POLICIES, authorize, select
from nsmesh.security.rules import Question, shown
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
            segments=segments,
        )
        authorize(self._policies, question)


_OWNER: Key[str] = Key("owner", TEXT)


class Authorize(_Policies):
    """Asks the policies about the left part of the path: from its beginning to our own segment.

    Roles of this process prove nothing to each other, nor do our own re-requests and Closes. ``masks`` select
    the policies; ``reader`` may be shared with others, so that each token is read once per process.

    The policies of the field ask whether a caller signed its own segment, not whose connection it is: with an
    id from a monitor, anybody of the trust domain could refresh or close what belongs to somebody else. So a
    connection also has an owner, the SPIFFE ID that requested it first, and listens to nobody else.

    After:  UpdatePath, Begin, UpdateToken
    Reads:  path; who calls
    Writes: DENIED in the state
    Leaves: the owner, per connection
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
        owner = call.state.get(_OWNER)
        if owner is not None and owner != call.peer.spiffe_id:
            names = " -> ".join(
                shown(one.name) for one in path.path_segments[path.index - 1 : path.index + 1]
            )
            REFUSALS.add("connection_owner")
            whose = owner or "a role of this process"
            raise Unauthorized(
                f"{REFUSED}: connection_owner refused hop {path.index - 1} ({names}): "
                f"connection {connection.id} belongs to {whose}, not to {call.peer.spiffe_id}",
                remedy="call with the identity that requested it, or request another connection",
            )

    def _is_of(self, old: str, new: str) -> bool:
        try:
            return self._reader.read(old).subject == self._reader.read(new).subject
        except BadToken:
            return False

    def _admit(self, call: Call, connection: Connection) -> None:
        try:
            self._check(call, connection)
        except MeshError:
            call.state.set(DENIED, value=True)
            raise

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Ask, then pass on; who was answered first owns the connection."""
        self._admit(call, request.connection)
        connection = await next.request(call, request)
        if call.state.get(_OWNER) is None and (call.peer.in_process or call.peer.spiffe_id):
            call.state.set(_OWNER, "" if call.peer.in_process else call.peer.spiffe_id)
        return connection

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Ask, then pass on; a refused Close leaves the connection as it is.

        A token further in front that has ended since, as all do when the clock is set, gives way to the newer
        one of the same identity that the Close brings along.
        """
        asked, now = call.get(ASKED), self.scope.clock.now()

        def may(old: PathSegment, new: PathSegment) -> bool:
            return seconds(old.expires) <= now and self._is_of(old.token, new.token)

        if asked is not None:
            renew_tokens(connection.path, asked.path, connection.path.index - 1, may)
        self._admit(call, connection)
        await next.close(call, connection)


_AGREED: Key[Peer] = Key("agreed")


class AuthorizeClient(_Policies):
    """Asks the policies about the whole path that came back, and who answered.

    A refused first answer is closed again by ``BeginClient``, which undoes every failed first Request.

    After:  BeginClient, Dial
    Reads:  path; DIALLED
    Leaves: who answered, per connection: the tokens of a path are signed with the key that it had then
    Close:  passes on first, then asks them about the path that was closed
    """

    after = ("Begin", "BeginClient", "Dial")

    def __init__(self, masks: Sequence[str] = CLIENT_POLICIES, *, reader: TokenReader | None = None) -> None:
        super().__init__(masks, reader)

    @staticmethod
    def _there(call: Call) -> Peer:
        handler = call.get(DIALLED)
        return peer_of(handler) if handler is not None else Peer()

    def _check(self, connection: Connection, index: int, peer: Peer) -> None:
        if not peer.in_process:
            self._authorize(connection.path.path_segments, index, peer)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then ask."""
        index = request.connection.path.index
        connection = await next.request(call, request)
        peer = self._there(call)
        self._check(connection, index, peer)
        call.state.set(_AGREED, peer)
        return connection

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on, then ask: a path whose tokens have expired is closed, and the caller hears of it."""
        index = connection.path.index
        closed = Connection()
        closed.CopyFrom(connection)
        await next.close(call, connection)
        peer = self._there(call)
        agreed = call.state.get(_AGREED)
        if agreed is not None and agreed.spiffe_id == peer.spiffe_id:  # it may have rotated since
            peer = replace(peer, certificate=agreed.certificate)
        self._check(closed, index, peer)
