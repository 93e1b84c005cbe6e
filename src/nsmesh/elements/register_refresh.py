"""RegisterRefresh: an endpoint registers again before its time is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

import structlog

from nsmesh.core.call import Call
from nsmesh.core.clock_steps import clock_steps
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.pauses import pauses
from nsmesh.core.scope import Timer
from nsmesh.core.turns import Turns
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Entry, NetworkServiceEndpoint
from nsmesh.model.renewal import renewal
from nsmesh.model.times import seconds

log = structlog.get_logger()

SHARE = 2 / 3
"""Part of the time to the expiration after which an endpoint registers again."""
INTERVAL = 0.2
"""Seconds between tries, at first; also the least time between two registrations."""
LONGEST = 2.0
"""Seconds between tries, after many."""
TRY = 15.0
"""Seconds that one try may take."""


@dataclass(eq=False, slots=True)
class _Kept:
    """One registration that is kept alive."""

    again: NetworkServiceEndpoint
    call: Call
    next: Handler
    timer: Timer | None = None


class RegisterRefresh(Element):
    """Registers each endpoint again at two thirds of the time to the expiration that was answered.

    What is sent is the last answer with the endpoint's own URL and no expiration time. An answer without an
    expiration time is never refreshed. A refresh that fails is repeated until it succeeds or the endpoint is
    unregistered. When the clock of this machine is set all register again at once: what was answered has
    ended by the new time, or ends too late.

    After:  RegisterHeal, RegisterRetry
    Leaves: one timer per endpoint
    Close:  Unregister ends the refreshing, waits for one under way, passes on
    """

    after = ("Begin", "RegisterRetry", "RegisterHeal")

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._turns = Turns()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Follow the clock while the chain runs."""
        self.scope.spawn(self._follow_clock(), name="steps of the clock")
        yield self

    async def _follow_clock(self) -> None:
        async for _ in clock_steps(self.scope.clock):
            for kept in self._kept.values():
                if kept.timer is not None:
                    kept.timer.cancel()
                    self._due(kept)

    def __len__(self) -> int:
        """Return how many endpoints are refreshed."""
        return len(self._kept)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Pass on, then start the timer."""
        if not isinstance(entry, NetworkServiceEndpoint):
            return await next.register(call, entry)
        async with self._turns.turn(entry.name):
            asked = copy_of(entry)
            answer = await next.register(call, entry)
            self._keep(call.fresh(), asked, answer, next)
            return answer

    def _keep(self, call: Call, asked: Entry, answer: Entry, next: Handler) -> None:
        self._drop(asked.name)
        again = renewal(asked, answer)
        if not (isinstance(answer, NetworkServiceEndpoint) and isinstance(again, NetworkServiceEndpoint)):
            return
        if not answer.HasField("expiration_time"):
            log.warning("registry gave no expiration time: the endpoint is not refreshed", name=asked.name)
            return
        kept = self._kept[asked.name] = _Kept(again, call, next)
        left = seconds(answer.expiration_time) - self.scope.clock.now()
        kept.timer = self.scope.after(max(left * SHARE, INTERVAL), lambda: self._due(kept))

    def _drop(self, name: str) -> None:
        kept = self._kept.pop(name, None)
        if kept is not None and kept.timer is not None:
            kept.timer.cancel()

    def _due(self, kept: _Kept) -> None:
        kept.timer = None
        self.scope.spawn(self._refresh(kept), name=f"register {kept.again.name} again")

    async def _refresh(self, kept: _Kept) -> None:
        name = kept.again.name
        for failures, pause in enumerate(pauses(INTERVAL, LONGEST)):
            async with self._turns.turn(name):
                if self._kept.get(name) is not kept:
                    return
                try:
                    answer = await kept.next.register(kept.call.within(TRY), copy_of(kept.again))
                except MeshError as error:
                    if not failures:
                        log.warning("endpoint not registered again yet", name=name, error=str(error))
                else:
                    self._keep(kept.call, kept.again, answer, kept.next)
                    return
            await asyncio.sleep(pause)

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Stop refreshing, whatever becomes of the Unregister."""
        if not isinstance(entry, NetworkServiceEndpoint):
            await next.unregister(call, entry)
            return
        self._drop(entry.name)
        async with self._turns.turn(entry.name):
            self._drop(entry.name)  # a refresh that was under way has started the next timer
            await next.unregister(call, entry)
