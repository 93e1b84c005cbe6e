import asyncio
import threading
from collections import Counter

from nsmesh.datapath import reaper as module
from nsmesh.datapath.reaper import Reaper


class FakeSocket:
    """A namespace and its socket: counts the deletions that are sent on it, and whether it was closed."""

    def __init__(self, log, cookie, wait=None):
        self.log, self.cookie, self.wait, self.closed = log, cookie, wait, False
        self.given = False
        self.sent = threading.Event()

    def give(self):
        self.given = True
        return self

    def send(self, batch):
        if self.wait is not None:
            self.wait.wait(5)
        self.log[self.cookie] += 1
        self.sent.set()
        return []

    def close(self):
        self.closed = True


def test_a_burst_is_deleted_where_most_ends_are():
    """200 wires into one namespace are one deletion there, none in the others, and no socket stays open."""

    async def main():
        log, sockets = Counter(), []
        reaper = Reaper(4)
        for number in range(200):
            ends = [FakeSocket(log, cookie) for cookie in (1, 100 + number)]
            sockets += ends
            reaper.give(ends)
        await reaper.aclose()
        assert log == {1: 1}
        assert all(socket.closed == socket.given for socket in sockets)
        assert sum(socket.given for socket in sockets if socket.cookie == 1) == 1

    asyncio.run(main())


def test_what_comes_during_a_deletion_goes_with_the_next():
    """While one namespace is busy, more for it is gathered, and deleted in one turn afterwards."""

    async def main():
        log, gate = Counter(), threading.Event()
        reaper = Reaper(4)
        reaper.give([FakeSocket(log, 1, gate), FakeSocket(log, 2)])
        await asyncio.sleep(module._GATHER * 3)
        late = [FakeSocket(log, 1) for _ in range(20)]
        for socket in late:
            reaper.give([socket])
        gate.set()
        await reaper.drain()
        assert log == {1: 2}
        assert all(socket.closed == socket.given for socket in late)
        await reaper.aclose()

    asyncio.run(main())


def test_namespaces_are_deleted_side_by_side():
    """One slow namespace does not hold up another."""

    async def main():
        log, gate = Counter(), threading.Event()
        reaper = Reaper(4)
        reaper.give([FakeSocket(log, 1, gate)])
        await asyncio.sleep(module._GATHER * 3)
        second = FakeSocket(log, 2)
        reaper.give([second])
        assert await asyncio.to_thread(second.sent.wait, 5)
        gate.set()
        await reaper.aclose()
        assert log == {1: 1, 2: 1}

    asyncio.run(main())


def test_threads_end_with_it():
    """After aclose no thread of the reaper lives; a reaper that did nothing never had one."""

    async def main():
        before = threading.active_count()
        idle = Reaper()
        await idle.aclose()
        reaper = Reaper()
        for cookie in range(5):
            reaper.give([FakeSocket(Counter(), cookie)])
        await reaper.aclose()
        assert threading.active_count() == before

    asyncio.run(main())
