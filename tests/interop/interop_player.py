"""The player: speaks all roles of a recorded conversation but one, and checks what ours sends there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from interop_answers import Answers
from interop_asking import Asked, Asking
from interop_bindings import Bindings
from interop_compare import Comparison, Difference
from interop_next_hop import NextHop
from interop_rules import ON_PURPOSE
from interop_standin import StandIn
from interop_taking import Expected, Taking
from interop_trace import FINDS, STREAMS, RecordedCall, Trace
from interop_world import World

from nsmesh.model import methods

PATIENCE = 15.0
"""Virtual seconds that the player waits for what ours has to send."""
UNARY = (
    methods.REQUEST,
    methods.CLOSE,
    methods.SERVICE_REGISTER,
    methods.SERVICE_UNREGISTER,
    methods.ENDPOINT_REGISTER,
    methods.ENDPOINT_UNREGISTER,
)


Start = Callable[[], Awaitable[None]]


class Player:
    """Plays one conversation. ``start`` and ``stop`` begin and end our role, when the recording says so."""

    def __init__(
        self, trace: Trace, bindings: Bindings, standins: dict[str, StandIn], ours: Callable[[str], str]
    ) -> None:
        self.trace = trace
        self.b = bindings
        self.role = bindings.role
        self.standins = standins
        self.ours = ours
        self.compare = Comparison(bindings)
        self.differences: list[Difference] = []
        self.world = World(trace, bindings)
        self.next_hop: NextHop | None = None
        self.expected = [
            Expected(call)
            for call in trace.calls
            if call.client == self.role and call.method in UNARY and call.server in standins
        ]
        self.asked = [
            Asked(call)
            for call in trace.calls
            if call.server == self.role and call.client in standins and call.t >= self._born(call)
        ]
        self.finds = [call for call in trace.calls if call.client == self.role and call.method in FINDS]
        self.answers = Answers(self)
        self.asking = Asking(self)
        self.taking = Taking(self)
        self.begin = 0.0
        self.prologue = True
        self.compared = 0
        self.last = max((event["t"] for event in trace.events), default=0.0)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def shows_its_start(self) -> bool:
        """Whether the recording shows how our role starts."""
        return any(one.role == self.role and one.what == "start" for one in self.trace.actions)

    def _born(self, call: RecordedCall) -> float:
        """Return the time before which a call was made at an earlier life of ours, or not to be repeated."""
        starts = [one.t for one in self.trace.actions if one.role == self.role and one.what == "start"]
        if starts:
            return starts[0]
        return -1e9 if call.method in STREAMS else 0.0

    # -- time ------------------------------------------------------------------------------------------------

    @property
    def t(self) -> float:
        """The time of the recording."""
        return asyncio.get_running_loop().time() - self.begin

    async def until(self, t: float) -> None:
        """Wait for a time of the recording."""
        await asyncio.sleep(max(t - self.t, 0.0))

    async def caused(self, t: float, what: str) -> None:
        """Wait for everything that ours has to have done before a time of the recording."""
        for one in self.expected:
            if one.call.t < t:
                await self._happened(one.arrived, f"{one.call.server} waits for {_named(one.call)}: {what}")
        for asked in self.asked:
            ended = asked.call.ended
            if ended is not None and ended < t and asked.call.method in UNARY:
                await self._happened(asked.done, f"ours answers {_named(asked.call)}: {what}")

    async def _happened(self, event: asyncio.Event, what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await event.wait()
        except TimeoutError:
            self.note(Difference(what, "it happened", "it did not happen"))
            event.set()

    def note(self, *found: Difference) -> None:
        """Keep differences that nobody wants."""
        for one in found:
            shown = f"{one.where}: {one.recorded} {one.ours}"
            meant = (
                purpose.covers(self.trace.name, self.role, text)
                for purpose in ON_PURPOSE
                for text in (one.where, shown)
            )
            if not any(meant):
                self.differences.append(one)

    # -- the play --------------------------------------------------------------------------------------------

    async def play(self, actions: dict[str, Start]) -> None:
        """Play all of it. ``actions``: what is done to our role, by the recorded word."""
        items: list[tuple[float, Callable[[], Awaitable[None]]]] = []
        items += [(asked.call.t, lambda asked=asked: self._begin_call(asked)) for asked in self.asked]
        for action in self.trace.actions:
            if action.role == self.role and action.t >= 0:
                word = "start" if action.what == "start" else action.what
                if word in actions:
                    items.append((action.t, actions[word]))
            elif action.role in self.standins and (action.ends or action.what == "start"):
                standin = self.standins[action.role]
                items.append((action.t, standin.stop if action.ends else standin.start))
        items += self._refusals()
        items += [
            (said.t, lambda said=said, of=of: self.world.told(of, said)) for of, said in self.world.events()
        ]
        items.sort(key=lambda item: item[0])
        try:
            for t, do in items:
                await self.until(t)
                await self.caused(t, f"at {t:.3f}")
                await do()
            await self._finish()
        finally:
            await self._end()

    def _refusals(self) -> list[tuple[float, Start]]:
        """Return when played roles are gone for a while: somebody's dial was refused."""
        found: list[tuple[float, Start]] = []
        for event in self.trace.events:
            standin = self.standins.get(event.get("to", ""))
            if event["ev"] == "refused" and standin is not None and event["t"] >= 0:
                before = [one.call.t for one in self.asked if one.call.t < event["t"]]
                found.append((max(before, default=event["t"]) - 1e-4, standin.pause))
                found.append((event["t"] + 1e-4, standin.resume))
        return found

    async def _begin_call(self, asked: Asked) -> None:
        self.spawn(self.asking.call(asked))
        await asyncio.sleep(0)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the play; it ends with it."""
        self._tasks.append(asyncio.ensure_future(work))

    async def _finish(self) -> None:
        last = self.last
        await self.until(last)
        await self.caused(last + 1, "the end")
        for asked in self.asked:
            if asked.call.method in UNARY or (asked.call.method in FINDS and asked.call.ended is not None):
                await self._happened(asked.done, f"ours answers {_named(asked.call)}")

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _named(call: RecordedCall) -> str:
    return f"{call.client}>{call.server} {call.verb} at {call.t:.3f}"
