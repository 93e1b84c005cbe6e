"""Streams on their way through an element, without a generator for each: every Request asks some."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Chosen(Generic[T]):
    """Those items of a stream that ``wanted`` says yes to; ``wanted`` may change them."""

    __slots__ = ("_stream", "_wanted")

    def __init__(self, stream: AsyncIterator[T], wanted: Callable[[T], bool]) -> None:
        self._stream = stream
        self._wanted = wanted

    def __aiter__(self) -> Self:
        """Return the stream itself."""
        return self

    async def __anext__(self) -> T:
        """Return the next wanted item."""
        async for item in self._stream:
            if self._wanted(item):
                return item
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End what the items come from."""
        end = getattr(self._stream, "aclose", None)
        if end is not None:
            await end()
