"""The events of the answering side: which call they belong to, and whether there may be one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nsmesh.core.errors import MeshError, Unavailable, Unimplemented
from nsmesh.core.scope import Scope
from nsmesh.rpc import engine as http2
from nsmesh.rpc import framing
from nsmesh.rpc.connection import Connection
from nsmesh.rpc.departures import departures_of
from nsmesh.rpc.descriptors import Descriptors, PeerDescriptors
from nsmesh.rpc.limits import Limits
from nsmesh.rpc.methods import Method, ServerCall
from nsmesh.rpc.running import HEAD, Running, tell_refusal

_NOT_GRPC = [
    (b":status", b"415"),
    (b"grpc-status", b"13"),
    (b"grpc-message", b"the content type is not gRPC"),
]
_NOT_POST = [(b":status", b"405"), (b"grpc-status", b"13"), (b"grpc-message", b"the method is not POST")]
_DRAIN = b"draining"


class Owner(Protocol):
    """The server, as its connections see it."""

    @property
    def own(self) -> str:
        """Who we are: our SPIFFE ID, or our URL."""
        ...

    def established(self, connection: ServerConnection) -> None:
        """Hear that the handshake is done."""
        ...

    def grown(self) -> None:
        """Hear that a connection keeps noticeably more than before."""
        ...

    def lost(self, connection: ServerConnection, reason: MeshError) -> None:
        """Hear that the connection is over."""
        ...

    def idle(self) -> None:
        """Hear that a connection may have nothing left to do."""
        ...


class ServerConnection(Connection):
    """One client and its calls."""

    def __init__(
        self,
        owner: Owner,
        methods: Mapping[str, Method],
        engine: http2.Engine,
        limits: Limits,
        scope: Scope,
        table: Descriptors,
    ) -> None:
        super().__init__(engine, limits)
        self.scope = scope
        self._owner = owner
        self._methods = methods
        self._table = table
        self._descriptors: PeerDescriptors | None = None
        self._calls: dict[int, Running] = {}
        self._highest = 0
        self._announced = False
        self._draining = False
        self._established = False
        self._begun = False
        self._departures = departures_of(self.loop)

    @property
    def running(self) -> int:
        """How many calls run."""
        return len(self._calls)

    @property
    def where(self) -> str:
        """Who is on the other side, in words."""
        return self.wire.where

    @property
    def own(self) -> str:
        """Who we are."""
        return self._owner.own

    @property
    def kept(self) -> int:
        """What came and is not worked off, and what waits to go."""
        return super().kept + self.engine.queued_in_all() + self.wire.buffered

    def grown(self) -> None:
        """Let the server compare."""
        self._owner.grown()

    def opened(self) -> None:
        """Begin, now that the peer is known."""
        self._descriptors = self._table.view(self.wire.peer)
        super().opened()

    def received(self, data: bytes) -> None:
        """Act on bytes; what the calls that begin by that ask of others goes out when all have begun."""
        super().received(data)
        if self._begun:
            self._begun = False
            self._departures.expect(self.loop)

    def on_settings(self) -> None:
        """Take the client's settings; the first ones end the handshake."""
        if not self._established:
            self._established = True
            self.wire.established()
            self._owner.established(self)

    def on_headers(self, event: http2.Headers) -> None:
        """Begin a call, or refuse it."""
        stream, headers, ended = event
        self._highest = max(self._highest, stream)
        fields = dict(headers)
        if not fields.get(b"content-type", b"").startswith(framing.CONTENT_TYPE):
            self._refuse(stream, _NOT_GRPC, ended=ended)
            return
        if fields.get(b":method") != b"POST":
            self._refuse(stream, _NOT_POST, ended=ended)
            return
        try:
            running = self._admit(stream, headers, fields)
        except MeshError as error:
            tell_refusal(self, fields.get(b":path", b"").decode("latin-1"), self.wire.peer, error)
            self._refuse(stream, HEAD + framing.status_headers(error), ended=ended)
            return
        running.begin()
        if ended:
            running.complete()

    def _admit(self, stream: int, headers: http2.HeaderList, fields: Mapping[bytes, bytes]) -> Running:
        """Return the call that ``headers`` begin; raises MeshError."""
        size = framing.check_size(headers, self.limits.header_list)
        if self._draining:
            raise Unavailable("this server is going away", remedy="call again on a new connection")
        path = fields.get(b":path", b"").decode("latin-1")
        method = self._methods.get(path)
        if method is None:
            raise Unimplemented(f"there is no method {path} here", remedy="check the version of both sides")
        timeout = fields.get(b"grpc-timeout")
        deadline = None if timeout is None else self.loop.time() + framing.decode_timeout(timeout)
        wire, descriptors = self.wire, self._descriptors
        assert descriptors is not None
        metadata = framing.decode_metadata(headers)
        call = ServerCall(path, metadata, deadline, wire.peer, descriptors, wire.send_fd)
        running = Running(self, stream, call, method)
        running.charge(self.limits.call + size)
        self._calls[stream] = running
        return running

    def _refuse(self, stream: int, headers: http2.HeaderList, *, ended: bool) -> None:
        self.engine.headers(stream, headers, ended=True)
        self.ended(stream, complete=ended)

    def on_data(self, event: http2.Data) -> None:
        """Take bytes of a call."""
        stream, data, ended = event
        running = self._calls.get(stream)
        if running is None:
            self.engine.consumed(stream, len(data))
            if not ended and not self.engine.queued(stream):
                self.engine.reset(stream, http2.NO_ERROR)  # it has its answer, and goes on sending
            return
        if data:
            running.take(data)
        elif not ended and not self.count("empty frames"):
            return
        if ended:
            running.complete()
            self._begun = True

    def on_trailers(self, event: http2.Trailers) -> None:
        """Take trailers of a request: they only end it."""
        running = self._calls.get(event.stream)
        if running is not None:
            running.complete()

    def on_reset(self, event: http2.Reset) -> None:
        """Stop the handler of a call that the client gave up."""
        running = self._calls.pop(event.stream, None)
        if running is not None:
            running.drop()
            self._owner.idle()

    def ended(self, stream: int, *, complete: bool) -> None:
        """Send the status that was queued, and stop a client that is still sending."""
        self._calls.pop(stream, None)
        if complete:
            self.soon()
        else:
            self.flush()
            if not self.engine.queued(stream):
                self.engine.reset(stream, http2.NO_ERROR)
                self.soon()
        if self._announced:
            self._owner.idle()

    def on_goaway(self, event: http2.GoAway) -> None:
        """Take the client's farewell: its calls go on until it closes."""

    def on_pong(self, event: http2.Pong) -> None:
        """Hear that the client knows that we go away: no call is under way any more."""
        if event.payload == _DRAIN:
            self._draining = True
            self._owner.idle()

    @property
    def told(self) -> bool:
        """Whether the client knows that we go away."""
        return self._draining or not self._established

    @property
    def answering(self) -> bool:
        """Whether a call runs that has one answer."""
        return any(running.single for running in self._calls.values())

    @property
    def quiet(self) -> bool:
        """Whether the client knows that we go away, and no call runs."""
        return self.told and not self._calls

    def announce(self) -> None:
        """Tell the client to make no new calls."""
        self._announced = True
        self.engine.goaway(http2.LAST_STREAM, http2.NO_ERROR)
        self.engine.ping(_DRAIN)
        self.soon()

    def finish(self) -> None:
        """Cancel what runs, and close.

        Who waits for one answer finds the connection closed and can ask again; a stream is told why it ends.
        """
        if not self._established:
            self.wire.abort(Unavailable("this server is going away", remedy="connect again"))
            return
        self._draining = True
        for running in list(self._calls.values()):
            if running.single:
                running.drop()
                continue
            running.fail(Unavailable("this server is going away", remedy="call again on a new connection"))
        self.engine.goaway(self._highest, http2.NO_ERROR)
        self.flush()
        self.wire.close()

    def lost(self, reason: MeshError) -> None:
        """Stop all handlers."""
        super().lost(reason)
        for running in self._calls.values():
            running.drop()
        self._calls.clear()
        self._owner.lost(self, reason)
