"""Monitor: tells whoever asks what becomes of the connections that pass here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Self

from nsmesh.core.call import Call, Key
from nsmesh.core.call import State as Kept
from nsmesh.core.element import Element, Handler
from nsmesh.core.follow import Follower, Following, Ours, way_of
from nsmesh.core.hub import Hub
from nsmesh.core.path_event import PathEvent
from nsmesh.core.peering import NEXT_HOP
from nsmesh.core.tokens import TokenSource
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    MonitorScopeSelector,
    NetworkServiceRequest,
    State,
)

FOLLOWING: Key[Following] = Key("following")


class Monitor(Element):
    """Serves MonitorConnections, and relays what the next hop's monitor says of the same connections.

    UPDATE after each Request; DELETE on Close, and before a reselect; UPDATE in state DOWN when a refresh
    failed, when the next hop lost the connection or said that it is down, and when its stream broke; UPDATE
    in state REFRESH_REQUESTED when the next hop, or :meth:`mark`, asked for one. Tokens are shown to whoever
    made the connection.

    After:  Begin
    Reads:  NEXT_HOP
    Leaves: what is known of each connection; one stream per neighbour
    Close:  stops following, passes on, then DELETE
    """

    after = ("Begin", "UpdatePath", "UpdateToken", "Timeout")

    def __init__(self, name: str, tokens: TokenSource | None = None) -> None:
        self.name = name
        self._hub = Hub(name)
        self._follower = Follower(lambda: self.scope, tokens)

    @property
    def hub(self) -> Hub:
        """What is known, and who listens."""
        return self._hub

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """End the streams of those who listen when the chain stops."""
        try:
            yield self
        finally:
            self._hub.end()

    def keeps(self) -> Collection[str]:
        """Return what is told of."""
        return self._hub.ids

    async def resume(self, call: Call, connection: Connection) -> None:
        """Tell of it again.

        Our end made those who follow us ask again, and with their Request the next hop is followed.
        """
        self._hub.put(connection, "" if call.peer.in_process else call.peer.spiffe_id)

    async def forget(self, connection_id: str, state: Kept) -> None:
        """Stop following, publish that it is gone."""
        following = state.pop(FOLLOWING)
        if following is not None:
            following.stop()
        self._hub.drop(connection_id)

    def mark(self, connection_id: str, state: int) -> bool:
        """Publish another state of a known connection; ``REFRESH_REQUESTED`` makes its client ask again.

        ``connection_id``: id of our own path segment. Returns whether that was news.
        """
        return self._hub.mark(connection_id, state)

    def tell(self, event: PathEvent) -> None:
        """Publish what became of data paths, as whoever looks after them says."""
        for connection_id in event.connections:
            self.mark(connection_id, State.UP if event.up else State.DOWN)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, publish what came of it, follow it."""
        connection_id = request.connection.id
        began = self.scope.clock.monotonic()
        anew = request.connection.state == State.RESELECT_REQUESTED
        if anew:
            await self.forget(connection_id, call.state)  # the next hop ends what it had, and will say so
        try:
            answer = await next.request(call, request)
        except Exception:
            self._hub.mark(connection_id, State.DOWN)
            raise
        known = answer
        if answer.state != State.UP:
            known = copy_of(answer)
            known.state = State.UP
        self._hub.put(known, "" if call.peer.in_process else call.peer.spiffe_id)
        self._follow(call, known, began, anew=anew)
        return answer

    def _follow(self, call: Call, connection: Connection, began: float, *, anew: bool) -> None:
        handler = call.state.get(NEXT_HOP)
        following = call.state.get(FOLLOWING)
        if following is not None and (not following.live or following.handler is not handler):
            following.stop()
            following = None
        if following is None and handler is not None and self.scope.running:
            key = connection.id
            following = self._follower.follow(
                handler,
                Ours.of(connection),
                began,
                lambda state: self._told(key, state),
                anew=way_of(connection, connection.path.index) if anew else None,
            )
            call.state.set(FOLLOWING, following)

    def _told(self, connection_id: str, state: int) -> None:
        """Relay; a reselect that somebody further on asked for is over by the time that we hear of it."""
        self._hub.mark(connection_id, State.UP if state == State.RESELECT_REQUESTED else state)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Stop following, pass on, publish."""
        following = call.state.pop(FOLLOWING)
        if following is not None:
            following.stop()
        try:
            await next.close(call, connection)
        finally:
            self._hub.drop(connection.id)

    def monitor(
        self,
        call: Call,
        selector: MonitorScopeSelector,
        next: Handler,  # noqa: ARG002 - the streams begin here
    ) -> AsyncIterator[ConnectionEvent]:
        """Answer from what is known."""
        return self._hub.subscribe(call.peer, selector)
