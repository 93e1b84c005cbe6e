"""Deletes interfaces in groups, in the background.

Deleting one interface takes the kernel some 20 ms, however many go together; so what is closed is only set
down and marked, and one request per namespace deletes all that are marked there.
"""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol

import structlog

from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.netlink import Batch, Failure, Netlink
from nsmesh.datapath.veth import DOOMED_GROUP

log = structlog.get_logger()

_GATHER = 0.002
"""Seconds to wait for more to be closed before deleting."""
_WORKERS = 32


class Marked(Protocol):
    """A namespace with a marked interface: its cookie, and a socket that it gives away."""

    cookie: int

    def give(self) -> Netlink:
        """Give the socket away; the new owner closes it."""
        ...


class Reaper:
    """Takes over sockets of namespaces with marked interfaces, deletes, and closes the sockets."""

    def __init__(self, workers: int = _WORKERS) -> None:
        self._workers = workers
        self._pool: ThreadPoolExecutor | None = None
        self._sockets: dict[int, Netlink] = {}
        self._wires: list[tuple[int, ...]] = []
        self._busy: dict[int, asyncio.Future[list[Failure]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def give(self, ends: Iterable[Marked]) -> None:
        """Take a wire to delete: the namespaces where an end of it is marked.

        Both ends go with one, so the namespace is used where most can be deleted together. The socket of a
        namespace is taken over unless one waits here already.
        """
        cookies = []
        for end in ends:
            if end.cookie not in self._sockets:
                self._sockets[end.cookie] = end.give()
            cookies.append(end.cookie)
        if not cookies:
            return
        self._wires.append(tuple(cookies))
        loop = asyncio.get_running_loop()
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._timer = loop.call_later(_GATHER, self._flush)

    async def drain(self) -> None:
        """Wait until everything that was given so far is deleted."""
        while self._wires or self._busy:
            if self._timer is not None:
                self._timer.cancel()
                self._flush()
            await asyncio.wait(list(self._busy.values()))
            await asyncio.sleep(0)  # the callbacks of what is done run first

    async def drain_within(self, seconds: float) -> None:
        """Wait until it is deleted, but not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.drain()

    async def aclose(self) -> None:
        """Finish, and end the threads."""
        await self.drain()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _flush(self) -> None:
        self._timer = None
        counts = Counter(cookie for wire in self._wires for cookie in set(wire))
        for cookie in self._busy:
            counts[cookie] += len(self._wires)  # what is busy takes more in its next turn
        chosen = {max(wire, key=counts.__getitem__) for wire in self._wires}
        waiting = chosen & self._busy.keys()
        starting = chosen - waiting
        # What has an end where a deletion starts now goes with it.
        self._wires = [
            wire for wire in self._wires if not waiting.isdisjoint(wire) and starting.isdisjoint(wire)
        ]
        kept = {cookie for wire in self._wires for cookie in wire}
        for cookie in [cookie for cookie in self._sockets if cookie not in kept | starting]:
            self._sockets.pop(cookie).close()
        for cookie in starting:
            self._start(cookie, self._sockets.pop(cookie))

    def _start(self, cookie: int, netlink: Netlink) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="reaper")
        job = asyncio.get_running_loop().run_in_executor(self._pool, _delete_marked, netlink)
        self._busy[cookie] = job
        job.add_done_callback(lambda done: self._done(cookie, netlink, done))

    def _done(self, cookie: int, netlink: Netlink, job: asyncio.Future[list[Failure]]) -> None:
        netlink.close()
        del self._busy[cookie]
        failures = [] if job.cancelled() or job.exception() else job.result()
        error = None if job.cancelled() else job.exception()
        if error or failures:
            # They stay marked and down: the next deletion in that namespace, or the next sweep, takes them.
            log.warning("closed interfaces are not deleted yet", error=str(error or failures))
        if self._wires and self._timer is None:
            self._flush()


def _delete_marked(netlink: Netlink) -> list[Failure]:
    """Delete all marked interfaces of a socket's namespace; runs in a thread, holds no lock of Python."""
    batch = Batch()
    batch.put(rt.delete_group(DOOMED_GROUP))
    return [failure for failure in netlink.send(batch) if failure.number != errno.ENODEV]
