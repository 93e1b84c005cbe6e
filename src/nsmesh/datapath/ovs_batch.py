"""What is asked for while something is being done is done together afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from nsmesh.core.errors import MeshError

T = TypeVar("T")


class Batch(Generic[T]):
    """Does many things of one kind at once.

    ``work`` does all of a list, and returns for each None, or why it failed. ``turn`` is held meanwhile:
    batches that share it follow one another.
    """

    def __init__(
        self, work: Callable[[list[T]], Awaitable[list[MeshError | None]]], turn: asyncio.Lock
    ) -> None:
        self._work = work
        self._turn = turn
        self._waiting: list[tuple[T, asyncio.Future[None]]] = []

    async def do(self, item: T) -> None:
        """Do one thing, with what others ask for meanwhile. Raises why it failed.

        Who gives up while it waits is left out; who does the work of others and gives up leaves it to them.
        """
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (item, mine)
        self._waiting.append(entry)
        try:
            async with self._turn:
                if not mine.done():
                    await self._all()
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
        mine.result()

    async def _all(self) -> None:
        taken, self._waiting = self._waiting, []
        try:
            results = await self._work([item for item, _ in taken])
        except MeshError as error:
            results = [error] * len(taken)
        except BaseException:
            self._waiting = [*taken, *self._waiting]
            raise
        for (_, future), result in zip(taken, results, strict=True):
            if result is None:
                future.set_result(None)
            else:
                future.set_exception(result)
                future.exception()  # whoever gave up does not ask for it
