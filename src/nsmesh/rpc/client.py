"""The calling side of gRPC: one connection, any number of calls at a time, bytes in and bytes out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import structlog

from nsmesh.core.call import Peer
from nsmesh.core.errors import Exhausted, Internal, MeshError, TimedOut
from nsmesh.core.identity import Identity
from nsmesh.core.process import start_ticks
from nsmesh.core.scope import Scope
from nsmesh.rpc import address, dialing, framing
from nsmesh.rpc import engine as http2
from nsmesh.rpc.client_connection import Call, ClientConnection, Reply
from nsmesh.rpc.descriptors import SHARED, Descriptors, PeerDescriptors
from nsmesh.rpc.inbox import Inbox
from nsmesh.rpc.limits import DEFAULT, Limits
from nsmesh.rpc.passage import Passage
from nsmesh.rpc.tls import Tls
from nsmesh.rpc.wire import Wire

log = structlog.get_logger()


class Client(ClientConnection):
    """A connection to a server; made by :func:`connect`.

    ``url``: what was dialled. ``closed``: no new call can be made, because the connection is gone or the
    server said goodbye; calls that run may still end well.
    """

    def __init__(self, url: str, engine: http2.Engine, limits: Limits, descriptors: Descriptors) -> None:
        super().__init__(url, engine, limits)
        self._table = descriptors
        self.scope = Scope(f"client of {url}")

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

        Raises Invalid on tcp, NotFound, Unauthorized, Exhausted, Unavailable.
        """
        return self.wire.send_fd(path)

    @property
    def passing(self) -> Passage | None:
        """Both directions of descriptors, None on tcp."""
        return Passage(self.wire.send_fd, self.descriptors) if self.wire.unix else None

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
        body = self._envelope(message)
        stream, call = self.begin(path, metadata, deadline)
        future: asyncio.Future[Reply] = self.loop.create_future()
        call.future = future
        self.engine.data(stream, body, ended=True)
        self.soon()
        try:
            return await future
        finally:
            self.give_up(stream, call)

    async def stream(
        self,
        path: str,
        message: bytes,
        *,
        metadata: Sequence[tuple[str, str]] = (),
        deadline: float | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Call ``path`` and yield its answers; ``aclose`` cancels at the server. Raises as ``unary``.

        The call begins when the first answer is asked for.
        """
        body = self._envelope(message)
        stream, call = self.begin(path, metadata, deadline)
        inbox = call.inbox = Inbox(self, stream)
        self.engine.data(stream, body, ended=True)
        self.soon()
        try:
            while (answer := await inbox.get()) is not None:
                yield answer
        finally:
            self.give_up(stream, call)

    async def bidi(
        self,
        path: str,
        messages: AsyncIterator[bytes],
        *,
        metadata: Sequence[tuple[str, str]] = (),
        deadline: float | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Call ``path`` with a stream of messages and yield its answers. Raises as ``unary``.

        A MeshError of ``messages`` cancels the call and is raised here.
        """
        stream, call = self.begin(path, metadata, deadline)
        inbox = call.inbox = Inbox(self, stream)
        self.soon()
        sender = self.scope.spawn(self._send_all(stream, call, messages), name=f"send to {path}")
        try:
            while (answer := await inbox.get()) is not None:
                yield answer
        finally:
            self.give_up(stream, call)
            sender.cancel()
            await asyncio.wait([sender])

    async def _send_all(self, stream: int, call: Call, messages: AsyncIterator[bytes]) -> None:
        """Send ``messages`` as fast as the server takes them, then say that there are no more."""
        try:
            async for message in messages:
                if self.calls.get(stream) is not call:
                    return
                self.engine.data(stream, self._envelope(message), ended=False)
                self.soon()
                await self.drain(stream)
        except MeshError as error:
            self._stop(stream, call, error)
        except Exception:
            log.exception("the messages of a call failed", method=call.path, peer=self.url)
            self._stop(stream, call, Internal(f"a fault in the messages for {call.path}"))
        else:
            if self.calls.get(stream) is call:
                self.engine.data(stream, b"", ended=True)
                self.soon()

    def _stop(self, stream: int, call: Call, error: MeshError) -> None:
        if self.calls.get(stream) is call:
            self.fail(stream, call, error)

    def _envelope(self, message: bytes) -> bytes:
        if len(message) > self.limits.message:
            raise Exhausted(
                f"a message of {len(message)} bytes is larger than the {self.limits.message} allowed",
                remedy="send less at once",
            )
        return framing.envelope(message)

    async def aclose(self, grace: float = 1.0) -> None:
        """Make no new calls, wait up to ``grace`` seconds for those that run, then end the connection."""
        self.closed = True
        if not self.wire.dead:
            self.engine.goaway(0, http2.NO_ERROR)
            self.soon()
            try:
                if self.calls and grace > 0:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(grace):
                            await self.idle.wait()
            finally:
                self.flush()
                self.wire.close()
        if self.scope.running:
            await self.scope.__aexit__(None, None, None)
        await self.wire.gone()


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
    limit = asyncio.get_running_loop().time() + timeout
    client = await _connected(url, identity, limit, timeout, engine, limits, descriptors)
    if client.peer.pid and start_ticks(client.peer.pid) is None:
        # it waited in the backlog of a process that is dead: who has taken it is somebody else, who is told
        # as the peer of connections that are made from now on
        await client.aclose(0)
        client = await _connected(url, identity, limit, timeout, engine, limits, descriptors)
    return client


async def _connected(
    url: str,
    identity: Identity | None,
    limit: float,
    timeout: float,
    engine: str | None,
    limits: Limits,
    descriptors: Descriptors,
) -> Client:
    sock = await dialing.dial(address.parse(url), timeout)
    try:
        client = Client(url, http2.make(engine, limits, client=True), limits, descriptors)
        tls = Tls(identity, server=False) if identity is not None else None
        client.wire = Wire(sock, client, where=url, limits=limits, descriptors=descriptors, tls=tls)
    except BaseException:
        sock.close()
        raise
    await client.scope.__aenter__()  # left again by aclose
    client.wire.start()
    late = TimedOut(f"{url} did not finish its handshake within {timeout:g} s", remedy="check the server")
    try:
        async with asyncio.timeout_at(limit):
            await client.ready
    except BaseException as error:
        client.wire.abort(late)
        await client.aclose(0)
        if isinstance(error, TimeoutError):
            raise late from None
        raise
    return client
