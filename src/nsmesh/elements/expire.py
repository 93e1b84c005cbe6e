"""Expire: an endpoint that does not register again goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError, TimedOut, Unavailable
from nsmesh.core.expiry import EXPIRES
from nsmesh.core.lookup import find_endpoints
from nsmesh.core.pauses import pauses
from nsmesh.core.scope import Timer
from nsmesh.core.turns import Turns
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Entry, NetworkServiceEndpoint
from nsmesh.model.times import seconds, timestamp

log = structlog.get_logger()

PERIOD = 60.0
"""Seconds that an endpoint stays without being registered again, where nothing shortens it."""
BUDGET = 15.0
"""Seconds that an Unregister of our own may take."""
MOST = 1 / 4
"""Part of a life by which its Unregister may come earlier."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds between tries of an Unregister of our own that failed."""


@dataclass(eq=False, slots=True)
class _Term:
    """One endpoint's time: when it is over, ``entry`` is unregistered at ``next``."""

    entry: NetworkServiceEndpoint
    call: Call
    next: Handler
    timer: Timer | None = None

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class Expire(Element):
    """Gives each endpoint an expiration time and unregisters it when that has come.

    The time is the earliest of: ``period`` seconds from now, :data:`nsmesh.core.expiry.EXPIRES` of the call,
    the endpoint's own wish, the next hop's answer. So a wish is only ever lowered, and an answer always has
    a time. The Unregister comes before it by what the call's deadline still allows, since it may take as long
    itself, but never before three quarters of the life are over. Services do not expire. Whoever registers
    again while the next hop cannot be reached lives: it has as long as if it had been answered.

    ``origin`` is the end of a chain whose entries outlive its process: when the chain starts, their timers
    start again. Without ``timers`` it only lowers: somebody else collects, as where several registries share
    what they hold and one sees a Register that another does not.

    After:  Begin
    Reads:  EXPIRES, the deadline
    Leaves: one timer per endpoint; one whose Unregister fails is tried again until it is gone
    Close:  Unregister cancels the timer once it has succeeded
    """

    after = ("Begin",)

    def __init__(self, period: float = PERIOD, *, origin: Handler | None = None, timers: bool = True) -> None:
        self.period = period
        self._timers = timers
        self._origin = origin
        self._terms: dict[str, _Term] = {}
        self._turns = Turns()

    def __len__(self) -> int:
        """Return how many endpoints have a timer."""
        return len(self._terms)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Take up what ``origin`` holds; on leaving, forget (the scope ends the timers)."""
        if self._origin is not None:
            stored = await find_endpoints(self._origin, Call(), NetworkServiceEndpoint())
            self.restore(stored, self._origin)
        try:
            yield self
        finally:
            self._terms.clear()

    def restore(self, entries: Iterable[NetworkServiceEndpoint], next: Handler) -> None:
        """Start the timers of entries that were registered before this process began.

        One whose time is over is unregistered at once; one without a time gets a period from now.
        """
        now = self.scope.clock.now()
        for entry in entries:
            ends = now + self.period
            if entry.HasField("expiration_time"):
                ends = seconds(entry.expiration_time)
            self._start(_Term(copy_of(entry), Call(), next), ends - now)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Lower the expiration time, pass on, start the timer with what came back."""
        if not isinstance(entry, NetworkServiceEndpoint):
            return await next.register(call, entry)
        async with self._turns.turn(entry.name):
            self._lower(call, entry)
            limit = copy_of(entry.expiration_time)
            try:
                answer = await next.register(call, entry)
            except (TimedOut, Unavailable):
                self._spare(entry.name, seconds(limit) - self.scope.clock.now())
                raise
            if not isinstance(answer, NetworkServiceEndpoint):
                return answer
            offered = answer.HasField("expiration_time") and seconds(answer.expiration_time)
            if not offered or offered > seconds(limit):
                answer.expiration_time.CopyFrom(limit)
            if not self._timers:
                return answer
            life = seconds(answer.expiration_time) - self.scope.clock.now()
            self._start(_Term(copy_of(answer), call.fresh(), next), life - self._budget(call, life))
            return answer

    def _lower(self, call: Call, entry: NetworkServiceEndpoint) -> None:
        candidate = self.scope.clock.now() + self.period
        credentials = call.get(EXPIRES)
        if credentials is not None:
            candidate = min(candidate, credentials)
        if not entry.HasField("expiration_time") or seconds(entry.expiration_time) > candidate:
            entry.expiration_time.CopyFrom(timestamp(candidate))

    def _budget(self, call: Call, life: float) -> float:
        """Return the seconds by which the Unregister comes earlier: what the deadline allows.

        At most a quarter of the life, so that whoever registers again at two thirds of it, as the field does,
        comes in time however short it is.
        """
        if call.deadline is None or life <= 0:
            return 0.0
        return min(max(call.deadline - self.scope.clock.monotonic(), 0.0), life * MOST)

    def _start(self, term: _Term, delay: float) -> None:
        self._stop(term.entry.name)
        self._terms[term.entry.name] = term
        term.timer = self.scope.after(delay, lambda: self._over(term))

    def _spare(self, name: str, life: float) -> None:
        term = self._terms.get(name)
        if term is not None:  # another one, so that an Unregister that is tried again and again ends
            self._start(_Term(term.entry, term.call, term.next), life)

    def _stop(self, name: str) -> None:
        term = self._terms.pop(name, None)
        if term is not None:
            term.cancel()

    def _over(self, term: _Term) -> None:
        self.scope.spawn(self._unregister(term), name=f"expire {term.entry.name}")

    async def _unregister(self, term: _Term) -> None:
        name = term.entry.name
        for pause in pauses(FIRST_PAUSE, LONGEST_PAUSE):
            async with self._turns.turn(name):
                if self._terms.get(name) is not term:
                    return  # registered again, or unregistered, while this waited its turn
                log.info("endpoint expired: it did not register again in time", endpoint=name)
                try:
                    await term.next.unregister(term.call.within(BUDGET), copy_of(term.entry))
                except MeshError as error:
                    log.warning("expired endpoint not unregistered yet", endpoint=name, error=str(error))
                else:
                    del self._terms[name]
                    return
            await asyncio.sleep(pause)

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Pass on; then there is nothing left to expire."""
        if not isinstance(entry, NetworkServiceEndpoint):
            await next.unregister(call, entry)
            return
        async with self._turns.turn(entry.name):
            await next.unregister(call, entry)
            self._stop(entry.name)
