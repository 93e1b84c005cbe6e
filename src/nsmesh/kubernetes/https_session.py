"""One connection to a webhook: HTTP/1.1 over TLS, with a limit to everything that a caller may take."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import h11
import structlog

from nsmesh.core.metrics import Counter

log = structlog.get_logger()

CLOSED = Counter("nsm_webhook_closed", "Connections that were closed for a limit, by which one.", ("limit",))
CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller, and all of them, may take. Times are seconds."""

    connections: int = 256
    """At the same time. The one that has waited longest for its caller makes place for a new one."""
    body: int = 8 << 20
    """Bytes. An object of the API has 3 MiB at most."""
    head: int = 32 << 10
    """Bytes of a request line with its headers."""
    handshake: float = 5.0
    request: float = 10.0
    """From the first byte of a request to its last; also for whoever does not take an answer."""
    idle: float = 180.0
    """Between two requests; longer than the 90 seconds of API servers, so that it is they who close."""
    leaving: float = 3.0
    """How long those who are connected are served on, when the server ends."""


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked."""

    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered."""

    status: int
    body: bytes = b""
    kind: str = "application/json"


class Host(Protocol):
    """What a session needs of its server."""

    limits: Limits
    leaving: bool
    context: ssl.SSLContext

    def waiting(self, session: Session) -> AbstractContextManager[None]:
        """Count a connection as one that waits for its caller while a block runs."""
        ...

    async def answered(self, request: Request) -> Answer:
        """Return what a request is answered."""
        ...


class Session:
    """One connection."""

    def __init__(self, server: Host, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._writer: asyncio.StreamWriter | None = None
        self.task: asyncio.Task[None] | None = None
        """What runs it."""

    async def run(self) -> None:
        """Serve requests one after the other, until one of us has had enough."""
        limits, loop = self._server.limits, asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=CHUNK)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            with self._server.waiting(self):
                transport, _ = await loop.connect_accepted_socket(
                    lambda: protocol,
                    self._sock,
                    ssl=self._server.context,
                    ssl_handshake_timeout=limits.handshake,
                    ssl_shutdown_timeout=1.0,
                )
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:
            self._sock.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            log.debug("no TLS with a caller", error=str(error) or type(error).__name__)
            return
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            await self._serve(reader, self._writer)
        except TimeoutError:
            CLOSED.add("time")
        except (OSError, EOFError, ssl.SSLError) as error:
            log.debug("a caller went away", error=str(error) or type(error).__name__)
        finally:
            transport.abort()

    def abort(self) -> None:
        """Let go of a connection that waits for its caller."""
        if self._writer is not None:
            self._writer.transport.abort()
        elif self.task is not None:
            self.task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server, limits = self._server, self._server.limits
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head)
        while True:
            if not http.trailing_data[0]:
                with server.waiting(self):
                    async with asyncio.timeout(limits.idle):
                        data = await reader.read(CHUNK)
                http.receive_data(data)
                if not data:
                    break
            async with asyncio.timeout(limits.request):
                try:
                    with server.waiting(self):
                        request = await self._request(http, reader, writer)
                except (h11.RemoteProtocolError, _Oversized) as error:
                    await self._send(http, writer, _complaint(error), last=True)
                    break
            if request is None:
                break
            answer = await server.answered(request)
            async with asyncio.timeout(limits.request):
                await self._send(http, writer, answer, last=server.leaving)
            if http.our_state is h11.MUST_CLOSE or http.their_state is h11.MUST_CLOSE:
                break
            http.start_next_cycle()
        if not writer.is_closing():
            writer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await writer.wait_closed()

    async def _request(
        self, http: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Request | None:
        """Return the next request as a whole, None where the caller has gone."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                if http.they_are_waiting_for_100_continue:
                    writer.write(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                http.receive_data(await reader.read(CHUNK))
            elif isinstance(event, h11.Request):
                head = event
                if (announced := _length(event)) > self._server.limits.body:
                    raise _Oversized(announced)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._server.limits.body:
                    raise _Oversized(len(body))
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                target = head.target.decode("latin-1").partition("?")[0]
                return Request(head.method.decode("latin-1"), target, bytes(body))
            else:
                return None

    async def _send(
        self, http: h11.Connection, writer: asyncio.StreamWriter, answer: Answer, *, last: bool
    ) -> None:
        headers = [("content-length", str(len(answer.body))), ("content-type", answer.kind)]
        if last:
            headers.append(("connection", "close"))
        if http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        out = http.send(h11.Response(status_code=answer.status, headers=headers)) or b""
        out += http.send(h11.Data(data=answer.body)) or b""
        out += http.send(h11.EndOfMessage()) or b""
        writer.write(out)
        await writer.drain()


class _Oversized(Exception):
    """More bytes than are taken."""


def _length(request: h11.Request) -> int:
    found = [value for name, value in request.headers if name == b"content-length"]
    return int(found[0]) if found else 0


def _complaint(error: h11.RemoteProtocolError | _Oversized) -> Answer:
    if isinstance(error, _Oversized):
        CLOSED.add("body")
        return Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"the body is too large", "text/plain")
    return Answer(error.error_status_hint, str(error).encode(), "text/plain")
