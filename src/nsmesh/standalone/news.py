"""That something has changed: whoever shows the mesh looks again then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class News:
    """Wakes listeners. They learn that there is news, not what: a slow one misses nothing."""

    def __init__(self) -> None:
        self._listening: set[asyncio.Event] = set()

    def tell(self) -> None:
        """Wake all."""
        for event in self._listening:
            event.set()

    @contextmanager
    def listen(self) -> Iterator[asyncio.Event]:
        """Yield an event that is set at each news from now on; who waits for it clears it."""
        event = asyncio.Event()
        self._listening.add(event)
        try:
            yield event
        finally:
            self._listening.discard(event)

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until ``condition`` holds; False if it does not within ``seconds``."""
        with self.listen() as changed:
            try:
                async with asyncio.timeout(seconds):
                    while not condition():
                        await changed.wait()
                        changed.clear()
            except TimeoutError:
                return condition()
        return True
