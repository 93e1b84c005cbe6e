"""The answering side of gRPC on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import structlog

from nsmesh.core.errors import (
    Exhausted,
    Internal,
    Invalid,
    MeshError,
    Remote,
    Status,
    TimedOut,
    Unavailable,
    Unimplemented,
)
from nsmesh.core.scope import Scope, Timer
from nsmesh.rpc import engine as http2
from nsmesh.rpc import framing
from nsmesh.rpc.connection import Connection, Inbox
from nsmesh.rpc.descriptors import Descriptors
from nsmesh.rpc.limits import Limits
from nsmesh.rpc.methods import Bidi, Method, ServerCall, ServerStream, Unary

log = structlog.get_logger()

_HEAD = [(b":status", b"200"), (b"content-type", framing.CONTENT_TYPE)]
_OK = [(b"grpc-status", b"0")]
_NOT_GRPC = [
    (b":status", b"415"),
    (b"grpc-status", b"13"),
    (b"grpc-message", b"the content type is not gRPC"),
]
_NOT_POST = [(b":status", b"405"), (b"grpc-status", b"13"), (b"grpc-message", b"the method is not POST")]
_DRAIN = b"draining"


class Owner(Protocol):
    """The server, as its connections see it."""

    def established(self, connection: ServerConnection) -> None:
        """Hear that the handshake is done."""
        ...

    def lost(self, connection: ServerConnection, reason: Exception) -> None:
        """Hear that the connection is over."""
        ...

    def idle(self) -> None:
        """Hear that the connection has nothing left to do."""
        ...


class _Running:
    """A call between its headers and its status."""

    __slots__ = (
        "answering",
        "assembler",
        "call",
        "complete",
        "inbox",
        "message",
        "method",
        "stream",
        "task",
        "timer",
    )

    def __init__(self, stream: int, call: ServerCall, method: Method, limit: int) -> None:
        self.stream = stream
        self.call = call
        self.method = method
        self.assembler = framing.Assembler(limit)
        self.message: bytes | None = None
        self.inbox: Inbox | None = None
        self.task: asyncio.Task[None] | None = None
        self.timer: Timer | None = None
        self.answering = False  # our initial headers have gone
        self.complete = False  # the client has sent all


class ServerConnection(Connection):
    """One client and its calls."""

    table: Descriptors

    def __init__(
        self, owner: Owner, methods: Mapping[str, Method], engine: http2.Engine, limits: Limits, scope: Scope
    ) -> None:
        super().__init__(engine, limits)
        self._owner = owner
        self._methods = methods
        self._scope = scope
        self._calls: dict[int, _Running] = {}
        self._assembling = 0
        self._highest = 0
        self._draining = False
        self._established = False

    @property
    def running(self) -> int:
        """How many calls run."""
        return len(self._calls)

    def on_settings(self, event: http2.Settings) -> None:
        """Take the client's settings; the first ones end the handshake."""
        if self.count("settings") and not self._established:
            self._established = True
            self.wire.established()
            self._owner.established(self)

    def on_headers(self, event: http2.Headers) -> None:
        """Begin a call."""
        stream, headers, ended = event
        self._highest = max(self._highest, stream)
        fields = dict(headers)
        if not fields.get(b"content-type", b"").startswith(framing.CONTENT_TYPE):
            self._refuse_http(stream, _NOT_GRPC, ended)
            return
        if fields.get(b":method") != b"POST":
            self._refuse_http(stream, _NOT_POST, ended)
            return
        path = fields.get(b":path", b"").decode("latin-1")
        try:
            self._admit(headers)
            method = self._methods.get(path)
            if method is None:
                raise Unimplemented(
                    f"there is no method {path} here", remedy="check the version of both sides"
                )
            timeout = fields.get(b"grpc-timeout")
            deadline = None if timeout is None else self.loop.time() + framing.decode_timeout(timeout)
        except MeshError as error:
            self._refuse(stream, error, ended=ended)
            return
        self._begin(stream, path, method, headers, deadline)
        if ended:
            self._complete(self._calls[stream])

    def _admit(self, headers: http2.HeaderList) -> None:
        size = framing.header_size(headers)
        if size > self.limits.header_list:
            raise Exhausted(
                f"metadata of {size} bytes is more than the {self.limits.header_list} that are taken",
                remedy="send less metadata",
            )
        if self._draining:
            raise Unavailable("this server is going away", remedy="call again on a new connection")

    def _begin(
        self, stream: int, path: str, method: Method, headers: http2.HeaderList, deadline: float | None
    ) -> None:
        wire = self.wire
        call = ServerCall(
            path,
            framing.decode_metadata(headers),
            deadline,
            wire.peer,
            self.table.view(wire.peer),
            wire.send_fd,
        )
        running = self._calls[stream] = _Running(stream, call, method, self.limits.message)
        if deadline is not None:
            running.timer = self._scope.at(deadline, lambda: self._late(running))
        if isinstance(method, Bidi):
            running.inbox = Inbox(self, stream)
            self._start(running)

    def _start(self, running: _Running) -> None:
        running.task = self._scope.spawn(self._run(running), name=running.call.path)

    def on_data(self, event: http2.Data) -> None:
        """Take bytes of a call."""
        stream, data, ended = event
        running = self._calls.get(stream)
        if running is None:
            self.engine.consumed(stream, len(data))
            return
        if not data and not ended and not self.count("empty frames"):
            return
        try:
            messages = self._assemble(running, data)
            self._deliver(running, messages, len(data))
        except MeshError as error:
            self._fail(running, error)
            return
        if ended:
            self._complete(running)

    def _assemble(self, running: _Running, data: bytes) -> list[bytes]:
        assembler = running.assembler
        before = assembler.pending
        messages = assembler.feed(data)
        self._assembling += assembler.pending - before
        if self._assembling > self.limits.assembling:
            raise Exhausted(
                "the messages under way on this connection are too large together", remedy="send less at once"
            )
        return messages

    def _deliver(self, running: _Running, messages: list[bytes], size: int) -> None:
        if running.inbox is not None:
            for message in messages:
                running.inbox.put(message)
            running.inbox.arrived(size)
            return
        self.engine.consumed(running.stream, size)
        for message in messages:
            if running.message is not None:
                raise Internal(f"{running.call.path} takes one message, and more came")
            running.message = message

    def _complete(self, running: _Running) -> None:
        """Act on the end of what the client sends."""
        if running.complete:
            return
        running.complete = True
        if running.assembler.pending:
            self._fail(running, Internal("the last message ended before its end"))
        elif running.inbox is not None:
            running.inbox.finish(None)
        elif running.message is None:
            self._fail(running, Internal(f"{running.call.path} takes one message, and none came"))
        else:
            self._start(running)

    def on_trailers(self, event: http2.Trailers) -> None:
        """Take trailers of a request: they only end it."""
        running = self._calls.get(event.stream)
        if running is not None:
            self._complete(running)

    async def _run(self, running: _Running) -> None:
        """Run the handler and send what it gives, or what it raises."""
        call = running.call
        method = running.method
        try:
            if isinstance(method, Unary):
                assert running.message is not None
                self._answer(running, await method.handler(call, running.message))
                self._end(running)
            elif isinstance(method, ServerStream):
                assert running.message is not None
                await self._stream(running, method.handler(call, running.message))
            else:
                await self._stream(running, method.handler(call, self._messages(running)))
        except MeshError as error:
            self._fail(running, error)
        except asyncio.CancelledError:
            self._fail(running, Remote(Status.CANCELLED, f"{call.path} was cancelled at the server"))
            raise
        except Exception:
            log.exception("a handler failed", method=call.path, peer=call.peer.spiffe_id or call.peer.uid)
            self._fail(
                running,
                Internal(f"a fault in the handler of {call.path}", remedy="the server's log has the details"),
            )

    async def _messages(self, running: _Running) -> AsyncIterator[bytes]:
        assert running.inbox is not None
        while (message := await running.inbox.get()) is not None:
            yield message

    async def _stream(self, running: _Running, answers: AsyncIterator[bytes]) -> None:
        self._head(running)
        self.soon()
        try:
            async for answer in answers:
                self._answer(running, answer)
                self.soon()
                await self.drain(running.stream)
        finally:
            close = getattr(answers, "aclose", None)
            if close is not None:
                await close()
        self._end(running)

    def _head(self, running: _Running) -> None:
        """Send the initial headers, once."""
        if not running.answering:
            running.answering = True
            reply = running.call.reply
            head = _HEAD + framing.encode_metadata(reply.items()) if reply else _HEAD
            self.engine.headers(running.stream, head, ended=False)

    def _answer(self, running: _Running, message: bytes) -> None:
        if len(message) > self.limits.message:
            raise Exhausted(
                f"the answer has {len(message)} bytes, more than {self.limits.message} may be sent"
            )
        if running.stream in self._calls:
            self._head(running)
            self.engine.data(running.stream, framing.envelope(message), ended=False)

    def _end(self, running: _Running) -> None:
        """Send status OK."""
        if self._forget(running):
            self.engine.trailers(running.stream, _OK)
            self._let_go(running.stream, complete=running.complete)

    def _fail(self, running: _Running, error: MeshError) -> None:
        """Send the status of ``error``, unless the call has ended, and stop its handler."""
        if not self._forget(running):
            return
        task = running.task
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        if running.answering:
            self.engine.trailers(running.stream, framing.status_headers(error))
            self._let_go(running.stream, complete=running.complete)
        else:
            try:
                extra = framing.encode_metadata(running.call.reply.items())
            except Invalid:
                extra = []
            self._refuse(running.stream, error, ended=running.complete, extra=extra)

    def _refuse(self, stream: int, error: MeshError, *, ended: bool, extra: http2.HeaderList = ()) -> None:
        self.engine.headers(stream, [*_HEAD, *extra, *framing.status_headers(error)], ended=True)
        self._let_go(stream, complete=ended)

    def _refuse_http(self, stream: int, headers: http2.HeaderList, ended: bool) -> None:
        self.engine.headers(stream, headers, ended=True)
        self._let_go(stream, complete=ended)

    def _let_go(self, stream: int, *, complete: bool) -> None:
        """Send the answer, and stop a client that is still sending."""
        if complete:
            self.soon()
            return
        self.flush()
        if not self.engine.queued(stream):
            self.engine.reset(stream, http2.NO_ERROR)
            self.soon()

    def _forget(self, running: _Running) -> bool:
        """Take a call off the list; return whether it was there."""
        if self._calls.get(running.stream) is not running:
            return False
        del self._calls[running.stream]
        self._assembling -= running.assembler.pending
        if running.timer is not None:
            running.timer.cancel()
        if self._draining and not self._calls:
            self._owner.idle()
        return True

    def _late(self, running: _Running) -> None:
        self._fail(running, TimedOut(f"{running.call.path} did not end by its deadline"))

    def on_reset(self, event: http2.Reset) -> None:
        """Stop the handler of a call that the client gave up."""
        if not self.count("resets"):
            return
        running = self._calls.get(event.stream)
        if running is not None:
            self._drop(running)

    def _drop(self, running: _Running) -> None:
        """Stop a call that nobody waits for."""
        if self._forget(running) and running.task is not None:
            running.task.cancel()

    def on_goaway(self, event: http2.GoAway) -> None:
        """Take the client's farewell; its calls go on until it closes."""

    def on_pong(self, event: http2.Pong) -> None:
        """Hear that the client knows that we go away: no call is under way any more."""
        if event.payload == _DRAIN:
            self._draining = True
            self._owner.idle()

    @property
    def quiet(self) -> bool:
        """Whether the client knows that we go away, and no call runs."""
        return (self._draining or not self._established) and not self._calls

    def announce(self) -> None:
        """Tell the client to make no new calls."""
        self.engine.goaway(http2.LAST_STREAM, http2.NO_ERROR)
        self.engine.ping(_DRAIN)
        self.soon()

    def finish(self) -> None:
        """Cancel what runs, and close."""
        for running in list(self._calls.values()):
            self._fail(
                running, Unavailable("this server is going away", remedy="call again on a new connection")
            )
        self.engine.goaway(self._highest, http2.NO_ERROR)
        self.flush()
        self.wire.close()

    def lost(self, reason: MeshError) -> None:
        """Stop all handlers."""
        super().lost(reason)
        for running in list(self._calls.values()):
            self._drop(running)
        self._owner.lost(self, reason)
