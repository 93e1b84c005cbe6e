"""Turns: one at a time for each name, in the order of arrival."""

from __future__ import annotations

import asyncio
from collections import deque

Waiting = deque[asyncio.Future[None]]


class Turns:
    """Names that somebody holds, with those who wait for each; a free one is forgotten."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, Waiting | None] = {}

    def __len__(self) -> int:
        """Return how many names somebody holds or waits for."""
        return len(self._held)

    def turn(self, name: str) -> _Turn:
        """Return what ``async with`` waits for: ``name`` to be free; it is held while the block runs."""
        return _Turn(self._held, name)


class _Turn:
    """One turn. A free name, nearly every one, is taken by nothing but an entry in a dict."""

    __slots__ = ("_held", "_name")

    def __init__(self, held: dict[str, Waiting | None], name: str) -> None:
        self._held = held
        self._name = name

    async def __aenter__(self) -> None:
        held, name = self._held, self._name
        if name not in held:
            held[name] = None
            return
        waiting = held[name]
        if waiting is None:
            waiting = held[name] = deque()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._pass_on()  # it was our turn already
            elif future in waiting:  # else whoever left meanwhile has passed it over
                waiting.remove(future)
            raise

    async def __aexit__(self, *_: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        waiting = self._held[self._name]
        while waiting:
            future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        del self._held[self._name]
