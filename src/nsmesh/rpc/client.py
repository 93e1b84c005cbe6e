"""The calling side of gRPC: one connection, any number of calls at a time, bytes in and bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass

from nsmesh import __version__
from nsmesh.core.call import Peer
from nsmesh.core.errors import Exhausted, Internal, MeshError, TimedOut, Unavailable
from nsmesh.core.identity import Identity
from nsmesh.core.scope import Scope
from nsmesh.rpc import address, framing
from nsmesh.rpc import engine as http2
from nsmesh.rpc.connection import Connection, Inbox
from nsmesh.rpc.descriptors import SHARED, Descriptors, PeerDescriptors
from nsmesh.rpc.limits import DEFAULT, Limits
from nsmesh.rpc.tls import Tls
from nsmesh.rpc.wire import Wire

CLOCKS_APART = 0.1
"""Seconds before our deadline in which a peer's cancellation counts as the deadline: clocks differ."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer of a unary call, with the initial metadata of its server."""

    message: bytes
    metadata: tuple[tuple[str, str], ...] = ()


class _Call:
    """A call that runs."""

    __slots__ = ("assembler", "deadline", "future", "inbox", "message", "metadata", "path", "timer")

    def __init__(self, path: str, deadline: float | None, limit: int) -> None:
        self.path = path
        self.deadline = deadline
        self.assembler = framing.Assembler(limit)
        self.message: bytes | None = None
        self.metadata: http2.HeaderList = ()
        self.inbox: Inbox | None = None
        self.future: asyncio.Future[Reply] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Client(Connection):
    """A connection to a server; made by :func:`connect`.

    ``url``: what was dialled. ``closed``: no new call can be made, because the connection is gone or the
    server said goodbye; calls that run may still end well.
    """

    def __init__(self, url: str, engine: http2.Engine, limits: Limits, descriptors: Descriptors) -> None:
        super().__init__(engine, limits)
        self.url = url
        self.closed = False
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self._table = descriptors
        self._calls: dict[int, _Call] = {}
        self._heads: dict[str, list[tuple[bytes, bytes]]] = {}
        self._scope = Scope(f"client of {url}")
        self._idle: asyncio.Future[None] | None = None

    @property
    def peer(self) -> Peer:
        """Who answers."""
        return self.wire.peer

    @property
    def descriptors(self) -> PeerDescriptors:
        """The descriptors that the server has sent."""
        return self._table.view(self.wire.peer)

    def send_fd(self, path: str) -> str:
        """Queue a descriptor of the file at ``path`` for the next call; return its ``inode://`` URL.

        Raises Invalid on tcp, NotFound, Unauthorized, Exhausted.
        """
        return self.wire.send_fd(path)

    async def unary(
        self,
        path: str,
        message: bytes,
        *,
        metadata: Sequence[tuple[str, str]] = (),
        deadline: float | None = None,
    ) -> Reply:
        """Call ``path`` (``/package.Service/Method``) and return its one answer.

        ``deadline`` is loop time. Raises what the server answered, TimedOut, or Unavailable. Cancelling
        cancels the call at the server.
        """
        stream, call = self._begin(path, metadata, deadline)
        future: asyncio.Future[Reply] = self.loop.create_future()
        call.future = future
        self.engine.data(stream, self._envelope(message), ended=True)
        self.soon()
        try:
            return await future
        finally:
            if stream in self._calls:
                self._give_up(stream, call)

    async def stream(
        self,
        path: str,
        message: bytes,
        *,
        metadata: Sequence[tuple[str, str]] = (),
        deadline: float | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Call ``path`` and yield its answers; ``aclose`` cancels the call at the server. Raises as ``unary``."""
        stream, call = self._begin(path, metadata, deadline)
        inbox = call.inbox = Inbox(self, stream)
        self.engine.data(stream, self._envelope(message), ended=True)
        self.soon()
        try:
            while (answer := await inbox.get()) is not None:
                yield answer
        finally:
            if stream in self._calls:
                self._give_up(stream, call)

    async def bidi(
        self,
        path: str,
        messages: AsyncIterator[bytes],
        *,
        metadata: Sequence[tuple[str, str]] = (),
        deadline: float | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Call ``path`` with a stream of messages and yield its answers. Raises as ``unary``.

        What ``messages`` raises cancels the call and is raised here.
        """
        stream, call = self._begin(path, metadata, deadline)
        inbox = call.inbox = Inbox(self, stream)
        self.soon()
        sender = self._scope.spawn(self._send_all(stream, call, messages), name=f"send to {path}")
        try:
            while (answer := await inbox.get()) is not None:
                yield answer
        finally:
            if stream in self._calls:
                self._give_up(stream, call)
            sender.cancel()
            await asyncio.wait([sender])

    async def _send_all(self, stream: int, call: _Call, messages: AsyncIterator[bytes]) -> None:
        try:
            async for message in messages:
                if stream not in self._calls:
                    return
                self.engine.data(stream, self._envelope(message), ended=False)
                self.soon()
                await self.drain(stream)
        except MeshError as error:
            if stream in self._calls:
                self._give_up(stream, call)
                self._finish(stream, call, error)
            return
        self.engine.data(stream, b"", ended=True)
        self.soon()

    def _envelope(self, message: bytes) -> bytes:
        if len(message) > self.limits.message:
            raise Exhausted(
                f"a message of {len(message)} bytes is larger than the {self.limits.message} that may be sent",
                remedy="send less at once",
            )
        return framing.envelope(message)

    def _begin(
        self, path: str, metadata: Sequence[tuple[str, str]], deadline: float | None
    ) -> tuple[int, _Call]:
        """Open a stream for a call."""
        if self.closed:
            raise Unavailable(f"the connection to {self.url} has ended", remedy="connect again")
        headers = self._head(path)
        if deadline is not None:
            left = deadline - self.loop.time()
            if left <= 0:
                raise TimedOut(
                    f"no time was left for {path} at {self.url}", remedy="give it a later deadline"
                )
            headers = [*headers, (b"grpc-timeout", framing.encode_timeout(left))]
        if metadata:
            headers = headers + framing.encode_metadata(metadata)
        try:
            stream = self.engine.request(headers)
        except http2.EngineError as error:
            raise Unavailable(f"{self.url} takes no more calls: {error}", remedy="connect again") from error
        call = self._calls[stream] = _Call(path, deadline, self.limits.message)
        if deadline is not None:
            call.timer = self.loop.call_at(deadline, self._late, stream, call)
        return stream, call

    def _head(self, path: str) -> list[tuple[bytes, bytes]]:
        head = self._heads.get(path)
        if head is None:
            head = self._heads[path] = [
                (b":method", b"POST"),
                (b":scheme", b"https" if self.peer.certificate else b"http"),
                (b":path", path.encode()),
                (b":authority", b"localhost"),
                (b"te", b"trailers"),
                (b"content-type", framing.CONTENT_TYPE),
                (b"user-agent", b"nsmesh/" + __version__.encode()),
            ]
        return head

    def _late(self, stream: int, call: _Call) -> None:
        if self._calls.get(stream) is call:
            self.engine.reset(stream, http2.CANCEL)
            self.soon()
            self._finish(stream, call, self._timed_out(call))

    def _timed_out(self, call: _Call) -> TimedOut:
        return TimedOut(
            f"{self.url} did not answer {call.path} in time", remedy="check what the server is doing"
        )

    def _give_up(self, stream: int, call: _Call) -> None:
        """Cancel at the server a call whose caller has left."""
        self.engine.reset(stream, http2.CANCEL)
        self.soon()
        self._forget(stream, call)

    def _forget(self, stream: int, call: _Call) -> None:
        self._calls.pop(stream, None)
        if call.timer is not None:
            call.timer.cancel()
        if not self._calls:
            self._became_idle()

    def _finish(self, stream: int, call: _Call, error: MeshError | None) -> None:
        """Tell the caller how its call ended."""
        self._forget(stream, call)
        if call.inbox is not None:
            call.inbox.finish(error)
        future = call.future
        if future is None or future.done():
            return
        if error is None and call.message is None:
            error = Internal(f"{self.url} ended {call.path} without an answer")
        if error is not None:
            future.set_exception(error)
        else:
            assert call.message is not None
            future.set_result(Reply(call.message, framing.decode_metadata(call.metadata)))

    def on_settings(self, event: http2.Settings) -> None:
        """Take the server's settings; the first ones end the handshake."""
        if self.count("settings") and not self.ready.done():
            self.wire.established()
            self.ready.set_result(None)

    def on_headers(self, event: http2.Headers) -> None:
        """Take the beginning of an answer, or a whole one that is only trailers."""
        call = self._calls.get(event.stream)
        if call is None:
            return
        error = framing.not_grpc(event.headers)
        if error is not None:
            if not event.ended:
                self.engine.reset(event.stream, http2.CANCEL)
            self._finish(event.stream, call, error)
        elif event.ended:
            self._finish(event.stream, call, framing.outcome(event.headers))
        else:
            call.metadata = event.headers

    def on_data(self, event: http2.Data) -> None:
        """Take bytes of an answer."""
        stream, data, ended = event
        call = self._calls.get(stream)
        if call is None:
            self.engine.consumed(stream, len(data))
            return
        if not data and not ended and not self.count("empty frames"):
            return
        try:
            messages = call.assembler.feed(data)
            self._deliver(stream, call, messages, len(data))
        except MeshError as error:
            self.engine.reset(stream, http2.CANCEL)
            self._finish(stream, call, error)
            return
        if ended:
            self._finish(stream, call, Internal(f"{self.url} ended {call.path} without a status"))

    def _deliver(self, stream: int, call: _Call, messages: list[bytes], size: int) -> None:
        inbox = call.inbox
        if inbox is not None:
            for message in messages:
                inbox.put(message)
            inbox.arrived(size)
            return
        self.engine.consumed(stream, size)
        for message in messages:
            if call.message is not None:
                raise Internal(f"{self.url} gave {call.path} more than one answer")
            call.message = message

    def on_trailers(self, event: http2.Trailers) -> None:
        """Take the end of an answer."""
        call = self._calls.get(event.stream)
        if call is not None:
            self._finish(event.stream, call, framing.outcome(event.headers))

    def on_reset(self, event: http2.Reset) -> None:
        """Take the end of a call that the server gave up."""
        if not self.count("resets"):
            return
        call = self._calls.get(event.stream)
        if call is None:
            return
        error: MeshError = framing.reset_error(event.code)
        if event.code == http2.CANCEL and call.deadline is not None:
            if self.loop.time() >= call.deadline - CLOCKS_APART:
                error = self._timed_out(call)
        self._finish(event.stream, call, error)

    def on_goaway(self, event: http2.GoAway) -> None:
        """Make no new calls; those that the server has not looked at fail, the others go on."""
        self.closed = True
        for stream, call in list(self._calls.items()):
            if stream > event.last:
                text = f"{self.url} said goodbye before it looked at {call.path}"
                self._finish(stream, call, Unavailable(text, remedy="call again on a new connection"))
        if not self._calls:
            self._became_idle()

    def _became_idle(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        if self.closed and not self.wire.dead:
            self.loop.call_soon(self.wire.close)

    def lost(self, reason: MeshError) -> None:
        """Fail all calls."""
        super().lost(reason)
        self.closed = True
        if not self.ready.done():
            self.ready.set_exception(reason)
        for stream, call in list(self._calls.items()):
            self._finish(stream, call, reason)

    async def aclose(self, grace: float = 1.0) -> None:
        """Make no new calls, wait up to ``grace`` seconds for those that run, then end the connection."""
        self.closed = True
        if not self.wire.dead:
            self.engine.goaway(0, http2.NO_ERROR)
            self.soon()
            if self._calls and grace > 0:
                self._idle = self.loop.create_future()
                await asyncio.wait([self._idle], timeout=grace)
            self.flush()
            self.wire.close()
        if self._scope.running:
            await self._scope.__aexit__(None, None, None)


async def connect(
    url: str,
    *,
    identity: Identity | None = None,
    timeout: float = 5.0,
    engine: str | None = None,
    limits: Limits = DEFAULT,
    descriptors: Descriptors = SHARED,
) -> Client:
    """Return a connection to the server at ``url``: TLS with an ``identity``, plaintext without.

    Raises Unavailable at once when nobody listens there, TimedOut after ``timeout`` seconds, Unauthorized
    when one side refuses the other's certificate, Invalid for a URL that is none.
    """
    loop = asyncio.get_running_loop()
    limit = loop.time() + timeout
    where = address.parse(url)
    sock = await address.dial(where, timeout)
    try:
        client = Client(url, http2.make(engine, limits, client=True), limits, descriptors)
        tls = Tls(identity, server=False) if identity is not None else None
        client.wire = Wire(sock, client, where=url, limits=limits, descriptors=descriptors, tls=tls)
    except BaseException:
        sock.close()
        raise
    await client._scope.__aenter__()  # noqa: SLF001 - left again by aclose
    client.wire.start()
    try:
        async with asyncio.timeout_at(limit):
            await client.ready
    except BaseException as error:
        late = TimedOut(f"{url} did not finish its handshake within {timeout:g} s", remedy="check the server")
        client.wire.abort(late)
        if client.ready.done() and not client.ready.cancelled():
            client.ready.exception()  # seen
        await client.aclose()
        if isinstance(error, TimeoutError):
            raise late from None
        raise
    return client
