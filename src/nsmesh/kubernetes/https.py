"""A small HTTPS server: what an API server calls.

HTTP/1.1, as API servers speak to webhooks; the protocol is h11's. A certificate may be changed at any time:
the next handshake shows the new one, and connections that stand go on.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

import structlog

from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.core.scope import Scope
from nsmesh.kubernetes.https_session import CLOSED, Answer, Limits, Request, Session
from nsmesh.security.contexts import unnamed_file

log = structlog.get_logger()

Handler = Callable[[Request], Awaitable[Answer]]


class Certificate:
    """The certificate that is shown now."""

    def __init__(self) -> None:
        self._current: ssl.SSLContext | None = None
        self.front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.front.minimum_version = ssl.TLSVersion.TLSv1_2
        self.front.set_alpn_protocols(["http/1.1"])
        self.front.sni_callback = self._choose

    def show(self, pem: bytes) -> None:
        """Show a chain with its key (PEM) from the next handshake on; raises Invalid, and changes nothing."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        with unnamed_file(pem) as path:
            try:
                context.load_cert_chain(path)
            except (ssl.SSLError, OSError) as error:
                raise Invalid(
                    f"the certificate cannot be used: {error}",
                    remedy="give a certificate and the key that belongs to it, as PEM",
                ) from error
        self._current = context

    def _choose(self, handshake: ssl.SSLObject | ssl.SSLSocket, *_: object) -> int | None:
        if self._current is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        handshake.context = self._current
        return None


class HttpsServer:
    """Serves ``handler`` at ``host:port``; see :func:`serving`."""

    def __init__(self, certificate: Certificate, handler: Handler, limits: Limits) -> None:
        self.context = certificate.front
        self.limits = limits
        self.leaving = False
        self.port = 0
        self._handler = handler
        self._waiting: OrderedDict[Session, None] = OrderedDict()
        self._sessions = 0
        self._place = asyncio.Event()

    @contextmanager
    def waiting(self, session: Session) -> Iterator[None]:
        """Count a connection as one that waits for its caller while a block runs."""
        self._waiting[session] = None
        try:
            yield
        finally:
            self._waiting.pop(session, None)

    async def answered(self, request: Request) -> Answer:
        """Return the handler's answer; what it did not foresee is logged, and the caller told."""
        try:
            return await self._handler(request)
        except Exception:
            log.exception("a request cannot be answered", path=request.path)
            return Answer(500, b'{"message": "the webhook failed: see its log"}')

    async def accept(self, listener: socket.socket, scope: Scope) -> None:
        """Take connections, never more than there may be; until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:  # no descriptor is left, or a caller that went away at once
                log.warning("a connection cannot be taken", error=str(error))
                await asyncio.sleep(0.1)
                continue
            try:
                while self._sessions >= self.limits.connections:
                    await self._make_place()
            except asyncio.CancelledError:
                sock.close()
                raise
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sessions += 1
            session = Session(self, sock)
            session.task = scope.spawn(session.run(), name="https")
            session.task.add_done_callback(partial(self._ended, sock))

    async def _make_place(self) -> None:
        """Wait until a connection has gone; the one that has waited longest for its caller goes at once.

        So whoever opens many, and says nothing or little, gets in nobody's way: a handshake takes some
        milliseconds, and as many connections would have to be opened meanwhile as there are places.
        """
        self._place.clear()
        if self._waiting:
            CLOSED.add("connections")
            self._waiting.popitem(last=False)[0].abort()
        await self._place.wait()

    def _ended(self, sock: socket.socket, _: asyncio.Task[None]) -> None:
        sock.close()
        self._sessions -= 1
        self._place.set()

    async def leave(self) -> None:
        """Serve on those who are connected, for a while: each answer tells its caller to come anew."""
        self.leaving = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.leaving):
                while self._sessions:
                    self._place.clear()
                    await self._place.wait()


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host or (not host and socket.has_dualstack_ipv6()) else socket.AF_INET
    try:
        found = socket.create_server(
            (host, port), family=family, backlog=128, dualstack_ipv6=family == socket.AF_INET6 and not host
        )
    except OSError as error:
        raise Unavailable(
            f"nobody can listen at {host}:{port}: {error.strerror or error}",
            remedy="choose another address with NSM_LISTEN_ON",
        ) from error
    found.setblocking(False)  # noqa: FBT003 - its face
    return found


@asynccontextmanager
async def serving(
    host: str, port: int, certificate: Certificate, handler: Handler, limits: Limits | None = None
) -> AsyncIterator[HttpsServer]:
    """Serve ``handler`` while the block runs; an empty host means all addresses, port 0 any free one.

    Raises Unavailable where nobody can listen there.
    """
    server = HttpsServer(certificate, handler, limits or Limits())
    listener = _listener(host, port)
    server.port = listener.getsockname()[1]
    try:
        async with Scope("https") as scope:
            accepting = scope.spawn(server.accept(listener, scope), name="accept")
            try:
                yield server
            finally:
                await server.leave()
                accepting.cancel()
    finally:
        listener.close()
