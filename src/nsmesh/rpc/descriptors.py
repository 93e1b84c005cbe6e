"""File descriptors that came over unix sockets: one table per process, found again by device and inode.

Process-wide, because some peers open a new connection for each call: a table that ends with its connection
would lose what the next call asks for. A descriptor is visible to calls of the peer that sent it, and to
nobody else: inode numbers are easy to guess. Nobody can fill the table for the others: when it is full, the
oldest of whoever has the most in it makes room.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass

from nsmesh.core.call import Peer
from nsmesh.core.errors import Exhausted, TimedOut
from nsmesh.model.fileurl import Inode, inode_url
from nsmesh.rpc import foreign, telling

LIFETIME = 60.0
"""Seconds that a descriptor is kept after it came, or was last asked for, while its sender lives."""

LARGEST = 4096
"""Descriptors that one process keeps, unless its own limit is lower than twice that."""

Sender = tuple[str, int | None, int | None]
Account = str | int | None


def sender_of(peer: Peer) -> Sender:
    """Return what tells one sender from another: SPIFFE ID, user and process."""
    return (peer.spiffe_id, peer.uid, peer.pid)


def account_of(sender: Sender) -> Account:
    """Return who answers for a sender, however many processes and connections he has."""
    return sender[0] or sender[1]


@dataclass(slots=True)
class Source:
    """One connection that sends descriptors, and how many of them nobody asked for yet."""

    sender: Sender
    limit: int
    unclaimed: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Entry:
    fd: int
    until: float
    source: Source
    claimed: bool = False


class Descriptors:
    """The table. One event loop uses it at a time."""

    def __init__(self, lifetime: float = LIFETIME, largest: int | None = None) -> None:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._lifetime = lifetime
        self._largest = largest or (LARGEST if soft == resource.RLIM_INFINITY else min(LARGEST, soft // 2))
        self._entries: dict[tuple[Sender, Inode], _Entry] = {}
        self._accounts: dict[Account, dict[tuple[Sender, Inode], None]] = {}  # oldest first
        self._waiters: dict[tuple[Sender, Inode], list[asyncio.Future[int]]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        """Return how many descriptors are kept."""
        return len(self._entries)

    def view(self, peer: Peer) -> PeerDescriptors:
        """Return the part of the table that belongs to ``peer``."""
        return PeerDescriptors(self, sender_of(peer))

    def source(self, peer: Peer, limit: int) -> Source:
        """Return a new sender's record: at most ``limit`` of its descriptors are kept unasked for.

        Whoever comes in the place of a process that has died sends its descriptors anew.
        """
        sender = sender_of(peer)
        for key in list(self._accounts.get(account_of(sender), ())):
            if key[0] != sender and _is_dead(key[0][2]):
                self._drop(key)
        return Source(sender, limit)

    def arrived(self, fd: int, source: Source) -> bool:
        """Take ``fd`` over; return False, and close it, when ``source`` has sent too many unasked."""
        try:
            inode = foreign.inode_of(fd)
        except OSError:
            os.close(fd)
            return True
        loop = asyncio.get_running_loop()
        key = (source.sender, inode)
        known = self._entries.get(key)
        if known is not None:
            os.close(fd)
            known.until = loop.time() + self._lifetime
            return True
        waiters = self._waiters.pop(key, ())
        if (not waiters and source.unclaimed >= source.limit) or not self._make_room(source):
            os.close(fd)
            self._refused(source)
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(Exhausted("no room is left for the descriptor that a peer sent"))
            return False
        entry = self._entries[key] = _Entry(fd, loop.time() + self._lifetime, source)
        self._accounts.setdefault(account_of(source.sender), {})[key] = None
        source.unclaimed += 1
        for waiter in waiters:
            if not waiter.done():
                _answer(waiter, self._claim, entry)
        self._schedule(loop)
        return True

    @staticmethod
    def _refused(source: Source) -> None:
        source.refused += 1
        if source.refused == 1:
            who = str(account_of(source.sender))
            telling.SHARED.warn(
                "a peer sends too many descriptors unasked", about=who, peer=who, limit=source.limit
            )

    def _make_room(self, source: Source) -> bool:
        """Return whether there is room for one more; somebody who has more than its sender may lose one."""
        if len(self._entries) < self._largest:
            return True
        greediest = max(self._accounts.values(), key=len)
        if len(greediest) <= len(self._accounts.get(account_of(source.sender), ())):
            return False
        self._drop(next(iter(greediest)))
        return True

    def _drop(self, key: tuple[Sender, Inode]) -> None:
        entry = self._entries.pop(key)
        account = account_of(key[0])
        kept = self._accounts[account]
        del kept[key]
        if not kept:
            del self._accounts[account]
        if not entry.claimed:
            entry.source.unclaimed -= 1
        os.close(entry.fd)

    async def wait(self, sender: Sender, inode: Inode, deadline: float | None) -> int:
        """See :meth:`PeerDescriptors.wait`."""
        key = (sender, inode)
        entry = self._entries.get(key)
        loop = asyncio.get_running_loop()
        if entry is not None:
            entry.until = loop.time() + self._lifetime
            return self._claim(entry)
        future: asyncio.Future[int] = loop.create_future()
        self._waiters.setdefault(key, []).append(future)
        try:
            async with asyncio.timeout_at(loop.time() + self._lifetime if deadline is None else deadline):
                return await future
        except TimeoutError:
            _give_up(future)
            raise TimedOut(
                f"the descriptor {inode_url(*inode)} did not come with the message that names it",
                remedy="the sender must pass it over the same unix socket; tcp cannot carry descriptors",
            ) from None
        except asyncio.CancelledError:
            _give_up(future)
            raise
        finally:
            self._leave(key, future)

    def _leave(self, key: tuple[Sender, Inode], future: asyncio.Future[int]) -> None:
        waiters = self._waiters.get(key)
        if waiters and future in waiters:
            waiters.remove(future)
            if not waiters:
                del self._waiters[key]

    def expected(self, sender: Sender, inode: Inode) -> None:
        """See :meth:`PeerDescriptors.expected`."""
        entry = self._entries.get((sender, inode))
        if entry is not None:
            self._count_as_asked(entry)

    @staticmethod
    def _count_as_asked(entry: _Entry) -> None:
        if not entry.claimed:
            entry.claimed = True
            entry.source.unclaimed -= 1

    def _claim(self, entry: _Entry) -> int:
        self._count_as_asked(entry)
        try:
            return os.dup(entry.fd)
        except OSError as error:
            raise Exhausted(
                f"no descriptor is left for what a peer sent: {error.strerror}",
                remedy="raise the limit (ulimit -n)",
            ) from error

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._sweeper is not None and self._loop is loop:
            return
        self._loop = loop
        self._sweeper = loop.call_later(self._lifetime / 4, self._sweep)

    def _sweep(self) -> None:
        """Close what is past its time."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._sweeper = None
        for key, entry in list(self._entries.items()):
            if entry.until <= now or _is_dead(key[0][2]):
                self._drop(key)
        if self._entries:
            self._schedule(loop)

    def close(self) -> None:
        """Close all descriptors."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for entry in self._entries.values():
            os.close(entry.fd)
        self._entries.clear()
        self._accounts.clear()


def _is_dead(pid: int | None) -> bool:
    """Whether there is no process of that pid; nobody knows of one in another namespace of pids."""
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _answer(waiter: asyncio.Future[int], claim: Callable[[_Entry], int], entry: _Entry) -> None:
    try:
        waiter.set_result(claim(entry))
    except Exhausted as error:
        waiter.set_exception(error)


def _give_up(future: asyncio.Future[int]) -> None:
    """Close the duplicate that came in the moment in which its waiter gave up."""
    if future.done() and not future.cancelled() and future.exception() is None:
        os.close(future.result())


class PeerDescriptors:
    """What one peer has sent: the part of the table that a call of this peer may see."""

    __slots__ = ("_sender", "_table")

    def __init__(self, table: Descriptors, sender: Sender) -> None:
        self._table = table
        self._sender = sender

    async def wait(self, dev: int, ino: int, deadline: float | None = None) -> int:
        """Return a duplicate of the descriptor of that device and inode; the caller closes it.

        Waits for one that is not there yet, until ``deadline`` (loop time) and 60 s at the most without one;
        raises TimedOut.
        """
        return await self._table.wait(self._sender, (dev, ino), deadline)

    def expected(self, dev: int, ino: int) -> None:
        """Hear that this descriptor, if it came, was not sent unasked, though nobody needs it again."""
        self._table.expected(self._sender, (dev, ino))


SHARED = Descriptors()
"""The table of this process."""
