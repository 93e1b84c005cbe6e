"""When requests leave: at the end of the turn of the loop in which they were queued, in one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakKeyDictionary

import structlog

log = structlog.get_logger()


class Departures:
    """The clients of one loop on which something waits to be flushed.

    A reader whose bytes began calls says that they are to be expected: the end of the turn then stands in the
    loop's queue behind their first steps, and what they ask of others leaves in the turn in which they run,
    not one later.
    """

    __slots__ = ("_due", "_late", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self._due = False
        self._late = False

    def expect(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear that calls have begun whose first steps wait in the queue of the loop."""
        if self._due:
            self._late = True  # they wait behind the end that was asked for
        else:
            self._due = True
            loop.call_soon(self._depart, loop)

    def add(self, loop: asyncio.AbstractEventLoop, flush: Callable[[], None]) -> None:
        """Call ``flush`` at the end of this turn, or of the next one where no end was asked for."""
        self._waiting.append(flush)
        if not self._due:
            self._due = True
            loop.call_soon(self._depart, loop)

    def _depart(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._late:
            self._late = False
            loop.call_soon(self._depart, loop)
            return
        self._due = False
        waiting, self._waiting = self._waiting, []
        for flush in waiting:
            try:
                flush()
            except Exception:  # the other connections have nothing to do with it
                log.exception("a connection could not be flushed")


_BY_LOOP: WeakKeyDictionary[asyncio.AbstractEventLoop, Departures] = WeakKeyDictionary()


def departures_of(loop: asyncio.AbstractEventLoop) -> Departures:
    """Return those of ``loop``."""
    found = _BY_LOOP.get(loop)
    if found is None:
        found = _BY_LOOP[loop] = Departures()
    return found
