"""Asks other DNS servers, over UDP and TCP: those that answered before those that did not."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from nsmesh.model.dns_message import NO_ERROR, NO_SUCH_NAME, code_of, renamed, replies_to

PORT = 53
STAGGER = 1.0
"""Seconds without an answer after which the next server is asked as well, and the first one once more."""
LIMIT = 4.0
"""Seconds for all servers together: less than the five after which resolvers ask again."""
HURRIED = 0.25
"""Seconds for servers of which none answered lately: a dead wire must not hold up each name."""
LATELY = 10.0
"""Seconds for which it is remembered that a server did not answer."""


class Asker:
    """Asks groups of servers; remembers which of them are silent."""

    def __init__(self) -> None:
        self._silent: dict[str, float] = {}

    async def ask(self, servers: Sequence[str], query: bytes, *, tcp: bool) -> bytes | None:
        """Return the first reply that says yes or no, else any error that came; None: nobody answered.

        ``servers`` are asked one after another, each on its own after ``STAGGER`` seconds. The reply has the
        identity of ``query``.
        """
        waiting = sorted(servers, key=self._is_silent)  # stable: what is healthy keeps its order
        hurried = all(map(self._is_silent, servers))
        running: dict[asyncio.Task[bytes], str] = {}
        error: bytes | None = None
        loop = asyncio.get_running_loop()
        end = loop.time() + (HURRIED if hurried else LIMIT)
        try:
            while (left := end - loop.time()) > 0 and (waiting or running):
                if waiting:
                    server = waiting.pop(0)
                    running[loop.create_task(_one(server, query, tcp=tcp))] = server
                pause = min(left, 0.0 if hurried and waiting else STAGGER if waiting else left)
                done, _ = await asyncio.wait(running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    for server in running.values():
                        # since when, not until when: it has all its time again some day
                        self._silent.setdefault(server, loop.time())
                for task in done:
                    reply = self._heard(running.pop(task), task)
                    if reply is not None and code_of(reply) in {NO_ERROR, NO_SUCH_NAME}:
                        return reply
                    error = reply or error
            return error
        finally:
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)

    def _heard(self, server: str, task: asyncio.Task[bytes]) -> bytes | None:
        try:
            reply = task.result()
        except (OSError, asyncio.IncompleteReadError):
            self._silent.setdefault(server, asyncio.get_running_loop().time())
            return None
        self._silent.pop(server, None)
        return reply

    def _is_silent(self, server: str) -> bool:
        since = self._silent.get(server)
        if since is not None and asyncio.get_running_loop().time() - since > LATELY:
            del self._silent[server]
            return False
        return since is not None


async def _one(server: str, query: bytes, *, tcp: bool) -> bytes:
    """Return the reply of one server, however long it takes; raises OSError and IncompleteReadError."""
    # An identity and a port of its own: whoever wants to answer in the server's place has to guess both.
    sent = renamed(query, secrets.token_bytes(2))
    reply = await (_by_tcp(server, sent) if tcp else _by_udp(server, sent))
    return renamed(reply, query[:2])


class _Waiting(asyncio.DatagramProtocol):
    """Takes the first datagram that replies to the query."""

    def __init__(self, query: bytes) -> None:
        self._query = query
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - the socket has one peer
        if not self.reply.done() and replies_to(self._query, data):
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


async def _by_udp(server: str, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    transport, waiting = await loop.create_datagram_endpoint(
        lambda: _Waiting(query), remote_addr=(server, PORT)
    )
    try:
        while not waiting.reply.done():
            transport.sendto(query)
            await asyncio.wait([waiting.reply], timeout=STAGGER)
        return waiting.reply.result()
    finally:
        transport.close()
        if not waiting.reply.cancel():
            waiting.reply.exception()  # it may have failed while this was cancelled, and nobody asks any more


async def _by_tcp(server: str, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    try:
        writer.write(len(query).to_bytes(2) + query)
        while True:
            reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            if replies_to(query, reply):
                return reply
    finally:
        writer.transport.abort()
