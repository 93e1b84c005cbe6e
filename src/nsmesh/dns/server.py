"""A DNS server for the programs of one pod: it knows nothing by itself, and asks whoever is chosen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from nsmesh.core.scope import Scope
from nsmesh.dns.asking import Asker
from nsmesh.model.dns_message import (
    FORMAT_ERROR,
    HEADER,
    NO_ERROR,
    NO_SUCH_NAME,
    NOT_IMPLEMENTED,
    SERVER_FAILURE,
    code_of,
    failure,
    is_query,
    question_of,
)

PENDING = 256
"""Datagrams that are answered at a time; those beyond are dropped, and asked again by who sent them."""
CONNECTIONS = 32
"""Connections by TCP at a time; those beyond are closed at once."""
IDLE = 10.0
"""Seconds after which a connection that asks nothing is closed."""

Groups = Callable[[str], Sequence[Sequence[str]]]
"""Whom to ask for a name: groups of servers, the next where the one before knows no such name."""


class LocalServer:
    """Answers over UDP and TCP at one address. Its tasks belong to ``scope``."""

    def __init__(self, host: str, port: int, groups: Groups, scope: Scope) -> None:
        self._address = (host, port)
        self._groups = groups
        self._scope = scope
        self._asker = Asker()
        self._starting = asyncio.Lock()
        self._pending = 0
        self._connections = 0
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; raises OSError where the address cannot be had. Once it listens it does nothing."""
        async with self._starting:
            if self._udp is not None:
                return
            host, port = self._address
            self._tcp = await asyncio.start_server(self._connected, host, port)
            try:
                self._udp, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: _Listening(self._received), local_addr=(host, port)
                )
            except OSError:
                self.close()
                raise

    def close(self) -> None:
        """Listen no more."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        self._udp = self._tcp = None

    async def answer(self, query: bytes, *, tcp: bool) -> bytes | None:
        """Return the reply to one message; None where it deserves none."""
        if len(query) < HEADER or query[2] & 0x80:
            return None
        if not is_query(query):
            return failure(query, NOT_IMPLEMENTED)
        try:
            name = question_of(query).name
        except ValueError:
            return failure(query, FORMAT_ERROR)
        first: bytes | None = None
        for servers in self._groups(name):
            reply = await self._asker.ask(servers, query, tcp=tcp)
            if reply is not None and code_of(reply) == NO_ERROR:
                return reply
            # "no such name" is an answer; an error is none as long as somebody may still know better
            if reply is not None and (first is None or code_of(first) != NO_SUCH_NAME):
                first = reply
        return first or failure(query, SERVER_FAILURE)

    def _received(self, transport: asyncio.DatagramTransport, query: bytes, sender: tuple[str, int]) -> None:
        if self._pending >= PENDING or not self._scope.running:
            return
        self._pending += 1
        self._scope.spawn(self._reply(transport, query, sender), name="dns query")

    async def _reply(
        self, transport: asyncio.DatagramTransport, query: bytes, sender: tuple[str, int]
    ) -> None:
        try:
            reply = await self.answer(query, tcp=False)
            if reply is not None and not transport.is_closing():
                transport.sendto(reply, sender)
        finally:
            self._pending -= 1

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= CONNECTIONS or not self._scope.running:
            writer.transport.abort()
            return
        self._connections += 1
        self._scope.spawn(self._serve(reader, writer), name="dns connection")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                while True:
                    async with asyncio.timeout(IDLE):
                        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                    reply = await self.answer(query, tcp=True)
                    if reply is None:
                        break
                    writer.write(len(reply).to_bytes(2) + reply)
                    async with asyncio.timeout(IDLE):
                        await writer.drain()
        finally:
            self._connections -= 1
            writer.close()


class _Listening(asyncio.DatagramProtocol):
    """Hands on what comes, with the transport to answer by."""

    def __init__(self, received: Callable[[asyncio.DatagramTransport, bytes, tuple[str, int]], None]) -> None:
        self._received = received
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._received(self._transport, data, addr)
