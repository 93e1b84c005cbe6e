"""Following: what the next hop's monitor says of our connections, over one stream per neighbour."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Handler
from nsmesh.core.errors import MeshError, Status
from nsmesh.core.peering import closing, handed_over, peer_of
from nsmesh.core.scope import Scope
from nsmesh.core.tokens import OUTGOING, TokenSource, token_headers
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    MonitorScopeSelector,
    PathSegment,
    State,
)
from nsmesh.model.selector import speaks_of

log = structlog.get_logger()

GRACE = 0.2
"""Seconds for which a loss that was told before we followed may still be taken back."""
REMEMBERED = 1024
"""Connections that nobody follows (yet) of which it is remembered what was heard, per neighbour."""

Way = tuple[str, ...]
"""Ids of the path segments behind our own."""

Tell = Callable[[int], None]
"""Takes the state that the next hop is in now: UP, DOWN (also: gone, silent), REFRESH_REQUESTED."""


@dataclass(frozen=True, slots=True)
class Ours:
    """Our own path segment of a connection: by it we know in an event what is said of ours."""

    name: str
    id: str
    index: int

    @classmethod
    def of(cls, connection: Connection) -> Ours:
        """Return the segment that the path's index points to."""
        index = connection.path.index
        segment = connection.path.path_segments[index]
        return cls(segment.name, segment.id, index)


def way_of(connection: Connection, index: int) -> Way:
    """Return by which way a connection goes on from the segment at ``index``."""
    return tuple([segment.id for segment in connection.path.path_segments[index + 1 :]])


class Following:
    """One connection that is followed; ``stop`` may be called any number of times.

    ``anew``: the way that was chosen anew, until the neighbour is heard to speak of it.
    """

    __slots__ = ("_stream", "anew", "handler", "ours", "tell")

    def __init__(self, stream: _Stream, ours: Ours, tell: Tell) -> None:
        self._stream: _Stream | None = stream
        self.handler = stream.handler
        self.ours = ours
        self.tell = tell
        self.anew: Way | None = None

    @property
    def live(self) -> bool:
        """Whether the stream is open."""
        return self._stream is not None

    def stop(self) -> None:
        """Hear no more."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.leave(self)

    def cut(self) -> None:
        """Note that the stream is over."""
        self._stream = None


class Follower:
    """Follows neighbours for one chain; ``scope`` is asked for when a stream opens.

    ``tokens`` mints what tells a neighbour who follows; None: it is not told.
    """

    def __init__(self, scope: Callable[[], Scope], tokens: TokenSource | None = None) -> None:
        self._scope = scope
        self._tokens = tokens
        self._streams: dict[tuple[Handler, str], _Stream] = {}

    @property
    def streams(self) -> int:
        """How many neighbours are followed now."""
        return len(self._streams)

    def follow(
        self, handler: Handler, ours: Ours, since: float, tell: Tell, *, anew: Way | None = None
    ) -> Following:
        """Hear at ``tell`` what becomes of a connection at ``handler``.

        ``since``: loop time at which the Request that was granted there began; what was lost before that is
        of an earlier life. ``anew``: the way that a reselecting one was granted. The neighbour also says that
        the earlier life is over, and where it has much to tell, later than it answers.
        """
        scope = self._scope()
        stream = self._streams.get((handler, ours.name))
        if stream is None:
            stream = self._streams[handler, ours.name] = _Stream(
                self._streams, handler, ours.name, scope, self._tokens
            )
            stream.task = scope.spawn(stream.read(), name=f"follow for {ours.name}")
        return stream.join(ours, since, tell, anew)


class _Stream:
    """The stream to one neighbour, and who listens to it."""

    def __init__(
        self,
        streams: dict[tuple[Handler, str], _Stream],
        handler: Handler,
        name: str,
        scope: Scope,
        tokens: TokenSource | None,
    ) -> None:
        self._streams = streams
        self.handler = handler
        self.name = name
        self.scope = scope
        self.tokens = tokens
        self.followed: dict[str, Following] = {}
        self.heard: dict[str, tuple[float, bool, Way]] = {}  # when, whether it is lost, and by which way
        self.task: asyncio.Task[None] | None = None

    def join(self, ours: Ours, since: float, tell: Tell, anew: Way | None) -> Following:
        following = Following(self, ours, tell)
        self.followed[ours.id] = following
        when, lost, way = self.heard.pop(ours.id, (since - 1, False, ()))
        if lost or when < since:
            following.anew = anew
        if lost and when >= since and anew in {None, way}:
            self.heard[ours.id] = since, True, way
            self.scope.after(GRACE, lambda: self._still_lost(following))
        return following

    def _still_lost(self, following: Following) -> None:
        """Tell of a loss between the answer to a Request and the moment at which it was followed."""
        key = following.ours.id
        if self.followed.get(key) is following and self.heard.pop(key, None) is not None:
            following.tell(State.DOWN)

    def leave(self, following: Following) -> None:
        if self.followed.get(following.ours.id) is following:
            del self.followed[following.ours.id]
        if not self.followed:
            self._forget()
            if self.task is not None:
                self.task.cancel()

    def _forget(self) -> None:
        if self._streams.get((self.handler, self.name)) is self:
            del self._streams[self.handler, self.name]

    def _call(self) -> Call:
        """Return a call with the token of who follows, as every call to a remote peer has one."""
        call, peer = Call(), peer_of(self.handler)
        token, expires = "", 0.0
        if self.tokens is not None and not peer.in_process:
            token, expires = self.tokens.mint(peer)
        return call.put(OUTGOING, token_headers(token, expires)) if token else call

    async def read(self) -> None:
        """Read to the end; when that was not meant to be, all that live there are down."""
        selector = MonitorScopeSelector(path_segments=[PathSegment(name=self.name)])
        status, why = Status.OK, "it ended"
        try:
            call = handed_over(self._call(), self.handler)
            async with closing(self.handler.monitor(call, selector)) as events:
                async for event in events:
                    self._hear(event)
        except MeshError as error:
            status, why = error.status, str(error)
        except Exception as error:
            log.exception("monitor of a neighbour failed")
            status, why = Status.INTERNAL, repr(error)
        finally:
            self._forget()
        followed = list(self.followed.values())
        self.followed.clear()
        log.info("monitor of the next hop ended", by=self.name, connections=len(followed), why=why)
        for following in followed:
            following.cut()
        if status not in (Status.CANCELLED, Status.UNIMPLEMENTED):
            for following in followed:
                following.tell(State.DOWN)

    def _hear(self, event: ConnectionEvent) -> None:
        gone = event.type == ConnectionEventType.DELETE
        for connection in event.connections.values():
            state = State.DOWN if gone else connection.state
            spoken_of = speaks_of(connection, self.name)
            if spoken_of is None:
                continue
            key, index = spoken_of
            following = self.followed.get(key)
            if following is None:
                self._note(key, state, way_of(connection, index))
            elif following.ours.index == index:
                if state == State.DOWN and following.anew not in {None, way_of(connection, index)}:
                    continue  # what was before it was chosen anew
                following.anew = None
                self.heard.pop(key, None)
                following.tell(state)

    def _note(self, connection_id: str, state: int, way: Way) -> None:
        self.heard.pop(connection_id, None)
        self.heard[connection_id] = asyncio.get_running_loop().time(), state == State.DOWN, way
        if len(self.heard) > REMEMBERED:
            del self.heard[next(iter(self.heard))]
