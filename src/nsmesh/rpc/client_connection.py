"""The events of the calling side: answers, resets and farewells, each told to the call that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from nsmesh import __version__
from nsmesh.core.errors import Internal, MeshError, TimedOut, Unanswered
from nsmesh.rpc import engine as http2
from nsmesh.rpc import framing
from nsmesh.rpc.connection import Connection
from nsmesh.rpc.departures import departures_of
from nsmesh.rpc.inbox import Inbox
from nsmesh.rpc.limits import Limits

CLOCKS_APART = 0.1
"""Seconds before our deadline in which a peer's cancellation counts as the deadline: clocks differ."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a unary call, with the initial metadata of its server."""

    message: bytes
    metadata: tuple[tuple[str, str], ...] = ()


class Call:
    """A call that runs: its answer goes to ``future`` (unary) or ``inbox`` (streams)."""

    __slots__ = ("assembler", "deadline", "future", "inbox", "message", "metadata", "path")

    def __init__(self, path: str, deadline: float | None, limit: int) -> None:
        self.path = path
        self.deadline = deadline
        self.assembler = framing.Assembler(limit)
        self.message: bytes | None = None
        self.metadata: http2.HeaderList = ()
        self.inbox: Inbox | None = None
        self.future: asyncio.Future[Reply] | None = None


class ClientConnection(Connection):
    """A connection to a server, below its public face."""

    def __init__(self, url: str, engine: http2.Engine, limits: Limits) -> None:
        super().__init__(engine, limits)
        self.url = url
        self.closed = False
        self.on_lost: Callable[[], None] | None = None
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.calls: dict[int, Call] = {}
        self.idle = asyncio.Event()
        self.idle.set()
        self._heads: dict[str, list[tuple[bytes, bytes]]] = {}
        self._departures = departures_of(self.loop)

    def soon(self) -> None:
        """Flush at the end of this turn of the loop, once for all that was queued in it."""
        if not self._soon:
            self._soon = True
            self._departures.add(self.loop, self.flush)

    def begin(self, path: str, metadata: framing.Metadata, deadline: float | None) -> tuple[int, Call]:
        """Open a stream for a call; raises Unanswered, TimedOut, Invalid."""
        if self.closed:
            raise Unanswered(f"the connection to {self.url} has ended", remedy="connect again")
        headers = self._heads.get(path) or self._head(path)
        if deadline is not None:
            left = deadline - self.loop.time()
            if left <= 0:
                raise TimedOut(
                    f"no time was left for {path} at {self.url}", remedy="give it a later deadline"
                )
            headers = [*headers, (b"grpc-timeout", framing.encode_timeout(left))]
        if metadata:
            headers = headers + framing.encode_metadata(metadata)
        framing.check_size(headers, self.limits.header_list * http2.HARD_HEADERS)
        try:
            stream = self.engine.request(headers)
        except http2.EngineError as error:
            raise Unanswered(f"{self.url} takes no more calls: {error}", remedy="connect again") from error
        call = self.calls[stream] = Call(path, deadline, self.limits.message)
        self.idle.clear()
        if deadline is not None:
            self.deadlines.add(stream, deadline, partial(self._late, stream, call))
        return stream, call

    def _head(self, path: str) -> list[tuple[bytes, bytes]]:
        head = self._heads[path] = [
            (b":method", b"POST"),
            (b":scheme", b"https" if self.wire.peer.certificate else b"http"),
            (b":path", path.encode()),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", framing.CONTENT_TYPE),
            (b"user-agent", b"nsmesh/" + __version__.encode()),
        ]
        return head

    def _late(self, stream: int, call: Call) -> None:
        if self.calls.get(stream) is call:
            self.fail(stream, call, self._timed_out(call))

    def _timed_out(self, call: Call) -> TimedOut:
        return TimedOut(
            f"{self.url} did not answer {call.path} in time", remedy="check what the server is doing"
        )

    def give_up(self, stream: int, call: Call) -> None:
        """Cancel at the server a call whose caller has left, unless it has ended."""
        if self.calls.get(stream) is call:
            self.engine.reset(stream, http2.CANCEL)
            self.soon()
            self._forget(stream)
        if call.inbox is not None:
            call.inbox.discard()

    def _forget(self, stream: int) -> None:
        self.calls.pop(stream, None)
        self.deadlines.drop(stream)
        if not self.calls:
            self._became_idle()

    def _became_idle(self) -> None:
        self.idle.set()
        if self.closed and not self.wire.dead:
            self.loop.call_soon(self.wire.close)

    def fail(self, stream: int, call: Call, error: MeshError) -> None:
        """End a call by our own decision."""
        self.engine.reset(stream, http2.CANCEL)
        self.soon()
        self.finish(stream, call, error)

    def finish(self, stream: int, call: Call, error: MeshError | None) -> None:
        """Tell the caller how its call ended."""
        self._forget(stream)
        if error is None and call.assembler.pending:
            error = Internal(f"{self.url} ended {call.path} in the middle of a message")
        if call.inbox is not None:
            call.inbox.finish(error)
        future = call.future
        if future is None or future.done():
            return
        if error is not None:
            future.set_exception(error)
        elif call.message is None:
            future.set_exception(Internal(f"{self.url} ended {call.path} without an answer"))
        else:
            future.set_result(Reply(call.message, framing.decode_metadata(call.metadata)))

    def on_settings(self) -> None:
        """Take the server's settings; the first ones end the handshake."""
        if not self.ready.done():
            self.wire.established()
            self.ready.set_result(None)

    def on_headers(self, event: http2.Headers) -> None:
        """Take the beginning of an answer, or a whole one that is only trailers."""
        stream, headers, ended = event
        call = self.calls.get(stream)
        if call is None:
            return
        error = framing.not_grpc(headers)
        if error is not None:
            self.fail(stream, call, error)
        elif ended:
            self.finish(stream, call, framing.outcome(headers))
        else:
            call.metadata = headers

    def on_data(self, event: http2.Data) -> None:
        """Take bytes of an answer."""
        stream, data, ended = event
        call = self.calls.get(stream)
        if call is None:
            self.engine.consumed(stream, len(data))
            return
        if not data and not ended and not self.count("empty frames"):
            return
        try:
            self._deliver(stream, call, call.assembler.feed(data), len(data))
        except MeshError as error:
            self.fail(stream, call, error)
            return
        if ended:
            self.finish(stream, call, Internal(f"{self.url} ended {call.path} without a status"))

    def _deliver(self, stream: int, call: Call, messages: list[bytes], size: int) -> None:
        if call.inbox is not None:
            call.inbox.arrived(size, messages)
            return
        self.engine.consumed(stream, size)
        for message in messages:
            if call.message is not None:
                raise Internal(f"{self.url} gave {call.path} more than one answer")
            call.message = message

    def on_trailers(self, event: http2.Trailers) -> None:
        """Take the end of an answer."""
        call = self.calls.get(event.stream)
        if call is not None:
            self.finish(event.stream, call, framing.outcome(event.headers))

    def on_reset(self, event: http2.Reset) -> None:
        """Take the end of a call that the server gave up."""
        call = self.calls.get(event.stream)
        if call is None:
            return
        error: MeshError = framing.reset_error(event.code, self.url)
        if event.code == http2.REFUSED_STREAM:  # the server has not looked at it (RFC 9113, 8.7)
            error = Unanswered(error.what, remedy="call again on a new connection")
        due = call.deadline is not None and self.loop.time() >= call.deadline - CLOCKS_APART
        if event.code == http2.CANCEL and due:
            error = self._timed_out(call)  # a server may answer an expired call with nothing but this
        self.finish(event.stream, call, error)

    def on_goaway(self, event: http2.GoAway) -> None:
        """Make no new calls; those that the server has not looked at fail, the others go on."""
        self.closed = True
        for stream, call in list(self.calls.items()):
            if stream > event.last:
                text = f"{self.url} said goodbye before it looked at {call.path}"
                self.finish(stream, call, Unanswered(text, remedy="call again on a new connection"))
        if not self.calls:
            self._became_idle()

    def lost(self, reason: MeshError) -> None:
        """Fail all calls."""
        super().lost(reason)
        self.closed = True
        if not self.ready.done():
            self.ready.set_exception(reason)
        for stream, call in list(self.calls.items()):
            self.finish(stream, call, reason)
        if self.on_lost is not None:
            self.on_lost()
