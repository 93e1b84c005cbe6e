"""Messages of a stream that nobody has read yet. A slow reader holds its sender back."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from nsmesh.core.errors import MeshError
from nsmesh.rpc.engine import Engine
from nsmesh.rpc.limits import Limits


class Keeper(Protocol):
    """The connection, as an inbox sees it."""

    engine: Engine
    limits: Limits

    def hold(self, size: int) -> None:
        """Count bytes that are kept, or with a negative size no longer; raises Exhausted."""
        ...

    def soon(self) -> None:
        """Flush at the end of this turn of the loop."""
        ...


class Inbox:
    """The received side of one stream."""

    __slots__ = ("_credit", "_end", "_ended", "_keeper", "_messages", "_size", "_stream", "_waiter")

    def __init__(self, keeper: Keeper, stream: int) -> None:
        self._keeper = keeper
        self._stream = stream
        self._messages: deque[bytes] = deque()
        self._size = 0
        self._credit = 0
        self._ended = False
        self._end: MeshError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def arrived(self, size: int, messages: list[bytes]) -> None:
        """Add messages that ``size`` new bytes completed; raises Exhausted when too much is unread.

        The peer gets its credit back at once, or when enough was read.
        """
        for message in messages:
            self._messages.append(message)
            self._size += len(message)
            self._keeper.hold(len(message))
        if messages:
            self._ring()
        if self._size > self._keeper.limits.stream_buffer:
            self._credit += size
        else:
            self._keeper.engine.consumed(self._stream, size)

    def finish(self, error: MeshError | None) -> None:
        """End: with nothing, or with what ``get`` raises after the last message."""
        if not self._ended:
            self._ended = True
            self._end = error
            self._ring()

    def discard(self) -> None:
        """Drop what nobody will read."""
        self._messages.clear()
        self._keeper.hold(-self._size)
        self._size = 0

    def _ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> bytes | None:
        """Return the next message, or None at the end; raises what the stream ended with."""
        while not self._messages:
            if self._ended:
                if self._end is not None:
                    raise self._end
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self._messages.popleft()
        self._size -= len(message)
        self._keeper.hold(-len(message))
        if self._credit and self._size <= self._keeper.limits.stream_buffer:
            self._keeper.engine.consumed(self._stream, self._credit)
            self._credit = 0
            self._keeper.soon()
        return message
