"""What is asked for together is done together, and nobody suffers from another's fault or departure."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.core.errors import MeshError, Refused
from nsmesh.datapath.ovs_batch import Batch


class Work:
    """Does lists of words; a word that begins with ``bad`` fails, ``all`` fails the whole list."""

    def __init__(self):
        self.done = []
        self.gate = asyncio.Event()

    async def __call__(self, items):
        self.done.append(items)
        await self.gate.wait()
        if "all" in items:
            raise Refused("all of it", remedy="-")
        return [Refused(item, remedy="-") if item.startswith("bad") else None for item in items]


async def started(batch, *items):
    tasks = [asyncio.ensure_future(batch.do(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


def scenario(body):
    async def main():
        work = Work()
        await body(work, Batch(work, asyncio.Lock()))

    asyncio.run(main())


def test_what_comes_meanwhile_is_done_at_once_afterwards():
    """One goes alone, the next three together; a fault is its own item's."""

    async def body(work, batch):
        first = await started(batch, "a")
        rest = await started(batch, "b", "bad", "c")
        work.gate.set()
        results = await asyncio.gather(*first, *rest, return_exceptions=True)
        assert work.done == [["a"], ["b", "bad", "c"]]
        assert [type(one) for one in results] == [type(None), type(None), Refused, type(None)]

    scenario(body)


def test_a_failure_of_the_whole_is_told_to_each():
    """And the next list is done as if nothing had been."""

    async def body(work, batch):
        work.gate.set()
        results = await asyncio.gather(*(await started(batch, "all", "b")), return_exceptions=True)
        assert all(isinstance(one, MeshError) for one in results[:1])
        await batch.do("c")
        assert work.done[-1] == ["c"]

    scenario(body)


def test_who_gives_up_while_it_waits_is_left_out():
    """It was not begun, so there is nothing to undo."""

    async def body(work, batch):
        first = await started(batch, "a")
        waiting = await started(batch, "b", "c")
        waiting[0].cancel()
        await asyncio.sleep(0)
        work.gate.set()
        await asyncio.gather(*first, waiting[1])
        assert work.done == [["a"], ["c"]]

    scenario(body)


def test_who_does_the_work_of_others_and_gives_up_leaves_it_to_them():
    """The other's item is done all the same."""

    async def main():
        work, turn = Work(), asyncio.Lock()
        batch = Batch(work, turn)
        await turn.acquire()
        leader, other = await started(batch, "b", "c")
        turn.release()
        async with asyncio.timeout(5):
            while not work.done:  # noqa: ASYNC110 - whoever has the turn next
                await asyncio.sleep(0)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        work.gate.set()
        await other
        assert work.done == [["b", "c"], ["c"]]

    asyncio.run(main())
