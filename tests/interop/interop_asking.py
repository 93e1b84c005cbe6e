"""What played roles ask of ours: each recorded call is made, and its answer is handed to the judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import Message
from interop_trace import STREAMS, RecordedCall, Said

from nsmesh import rpc
from nsmesh.core.errors import MeshError
from nsmesh.core.peering import closing
from nsmesh.rpc import framing

if TYPE_CHECKING:
    from interop_player import Player

TAIL = 0.3
"""Virtual seconds for which streams are heard that the end of the recording cut off."""
ROUNDS = 30
"""Real milliseconds for which bytes that are still under way are waited for before a stream is left."""
_NOT_SENT = {"te", "content-type", "user-agent", "grpc-timeout", "grpctracing", "grpc-accept-encoding"}


@dataclass
class Asked:
    """A recorded call of a played role at ours, and what came of it."""

    call: RecordedCall
    begun: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)
    answers: list[bytes] = field(default_factory=list)
    head: tuple[tuple[str, str], ...] = ()
    error: MeshError | None = None


class Asking:
    """Makes the calls of one play."""

    def __init__(self, player: Player) -> None:
        self._p = player

    async def call(self, asked: Asked) -> None:
        """Make one call; its answer is judged when it is there."""
        call, p = asked.call, self._p
        asked.begun = True
        try:
            client = await p.standins[call.client].client(p.ours(call.client), call.conn)
            body = self._body(call, client)
            deadline = self._deadline(call)
            metadata = self._metadata(call)
            if call.method in STREAMS:
                stream = client.stream(call.method, body, metadata=metadata, deadline=deadline)
                await self._hear(asked, stream)
            else:
                reply = await client.unary(call.method, body, metadata=metadata, deadline=deadline)
                asked.answers.append(reply.message)
                asked.head = tuple(reply.metadata)
        except MeshError as error:
            asked.error = error
        finally:
            p.answers.judge(asked)
            asked.done.set()

    def _body(self, call: RecordedCall, client: rpc.Client) -> bytes:
        b = self._p.b
        said = call.requests[0] if call.requests else Said(call.t, None, b"", None)
        if said.message is None:
            return said.raw
        if client.url.startswith("unix:"):
            for url in b.urls_in(said.message):
                if self._p.trace.sent(call, url):
                    client.send_fd(str(b.file(b.trace.inodes[url])))
        live: Message = b.live(said.message)
        return live.SerializeToString()

    def _metadata(self, call: RecordedCall) -> list[tuple[str, str]]:
        b = self._p.b
        return [
            (key, b.spoken(b.moved(value) if key == "nsm-client-token-expires" else value))
            for key, value in call.metadata
            if not key.startswith(":") and key not in _NOT_SENT
        ]

    @staticmethod
    def _deadline(call: RecordedCall) -> float | None:
        found = call.header("grpc-timeout")
        if not found:
            return None
        return asyncio.get_running_loop().time() + framing.decode_timeout(found[0].encode())

    async def _hear(self, asked: Asked, stream: AsyncIterator[bytes]) -> None:
        """Hear a stream to its end, or until its client left it in the recording."""
        call, p = asked.call, self._p

        async def read() -> None:
            async with closing(stream) as answers:
                async for answer in answers:
                    asked.answers.append(answer)

        if call.ended is not None and call.reset_by != ">":
            await read()
            return
        reading = asyncio.ensure_future(read())
        end = p.last if call.ended is None else call.ended
        try:
            await asyncio.wait((reading,), timeout=max(end - p.t, 0.0) + self._tail(call, end))
            for _ in range(ROUNDS):
                if reading.done() or len(asked.answers) >= len(call.answers):
                    break
                time.sleep(0.001)  # noqa: ASYNC251 - real time: virtual time would bring what comes later
                await asyncio.sleep(0)
        finally:
            reading.cancel()
            await asyncio.wait((reading,))
        if not reading.cancelled():
            reading.result()

    def _tail(self, call: RecordedCall, end: float) -> float:
        """Return how long a stream is heard beyond its recorded end: a stand-in's, which the end cut off."""
        kind = self._p.trace.header["components"].get(call.client, {}).get("kind")
        return TAIL if kind == "stand-in" and self._p.last - end < TAIL else 0.0
