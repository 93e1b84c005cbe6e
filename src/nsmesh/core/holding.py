"""An element that holds something by name, and lets go of all of it when its chain ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, Protocol, Self, TypeVar

from nsmesh.core.element import Element


class Held(Protocol):
    """What is held, by name."""

    def __len__(self) -> int:
        """Return for how many names something is held."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


H = TypeVar("H", bound=Held)


class Holding(Element, Generic[H]):
    """Base of elements that hold something; ``len`` tells for how many names."""

    def __init__(self, held: H) -> None:
        self._held = held

    def __len__(self) -> int:
        """Return for how many names something is held."""
        return len(self._held)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Let go of everything on leaving."""
        try:
            yield self
        finally:
            self._held.close()
