"""Runs scenarios: a stream through a wire, a fault, a new Request, and what became of all of it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import NamedTuple

from nsmesh.chaos.faults import PATIENCE, SERVICE, Faults, Struck, own_service
from nsmesh.chaos.ground import Ground, ground
from nsmesh.chaos.outcomes import Outcome
from nsmesh.chaos.packets import Tally
from nsmesh.chaos.scenarios import HOLD, IDLE, RATES, REQUEST, STREAM, Layout, Scenario, Wanted
from nsmesh.chaos.streams import Stream, stream
from nsmesh.chaos.turns import Turns
from nsmesh.core.errors import MeshError, Status
from nsmesh.datapath import probe, programs
from nsmesh.standalone.supervisor import STEADY

PROBE = 1_000
"""Packets a second that look at a wire on which nothing went on."""
LOOK = 0.3
"""Seconds that they do."""
LEAD = 0.3
"""Seconds that a stream flows before the fault, and after it at the least."""
MIDDLE = 0.02
"""Seconds within which a Request is still under way."""
ANSWER, BREATH = 0.05, 0.02
"""Seconds that one packet has to pass a wire and come back, and until another one is tried."""


class _Aftermath(NamedTuple):
    """What followed a fault: when packets passed and a new Request was served, if so (``time.monotonic``)."""

    struck: Struck
    passed: float
    served: float | None


async def run(wanted: Sequence[Wanted], situation: str, turns: Turns) -> AsyncIterator[Outcome]:
    """Run scenarios, those on a mesh of one kind in turn, each as often as wanted; yield what was seen.

    A mesh that does not get well is replaced: what it suffers is not what the next fault does. It is made and
    harmed in ``turns``, and rests outside of them.
    """
    for layout in dict.fromkeys(one.scenario.layout for one in wanted):
        mine = [one for one in wanted if one.scenario.layout == layout]
        outcomes = {one.name: Outcome(one.name, one.scenario, situation) for one in mine}
        rounds = range(max(one.times for one in mine))
        waiting = [outcomes[one.name] for number in rounds for one in mine if number < one.times]
        while waiting:
            tried = []
            async with AsyncExitStack() as stack:
                async with turns.taken():
                    made = ground(*layout.options, small=layout.small, clock=layout.clock)
                    mesh = await stack.enter_async_context(made)
                    field = _Field(mesh, layout, turns)
                    await field.prepare()
                while waiting:
                    tried.append(waiting.pop(0))
                    if not await field.once(tried[-1]):
                        break
            tried[-1].leaks += mesh.left
        for outcome in outcomes.values():
            yield outcome


class _Field:
    """A mesh with a wire, and what is done to it."""

    def __init__(self, mesh: Ground, layout: Layout, turns: Turns) -> None:
        self.turns = turns
        self.mesh = mesh
        self.layout = layout
        self.client = mesh.space("client")
        self.fresh = mesh.space("fresh")
        self.faults = Faults(mesh, self.client)
        self.address = ""

    async def prepare(self) -> None:
        """Make endpoints and client, on nodes of their own where there are several."""
        await self.faults.populate(self.layout.endpoints)
        node = "node1" if self.layout.endpoints[0][1] else ""
        await self.mesh.connect(f"kernel://{SERVICE}/nsm-1", self.client, "client", node)
        (row,) = await self.mesh.rows("connections")
        self.address = row["peer_address"][0].partition("/")[0]

    async def once(self, outcome: Outcome) -> bool:
        """Do it once, note what was seen, and say whether the mesh is well again, and as it was before."""
        try:
            await self._rest(outcome.scenario)
            async with self.turns.taken():
                return await self._once(outcome)
        except MeshError as error:
            outcome.given_up += 1
            outcome.errors.append(str(error))
            return False

    async def _once(self, outcome: Outcome) -> bool:
        scenario, promise = outcome.scenario, outcome.promise
        ends = [self.client, *(() if promise.moves else self.faults.places)]
        before = [await _interfaces(end) for end in ends]
        if outcome.situation == IDLE:
            harm = await self._harm(scenario, IDLE, None)
        async with self._flow(RATES[outcome.situation] or PROBE) as flow:
            await asyncio.sleep(LOOK if outcome.situation == IDLE else LEAD)
            if outcome.situation != IDLE:
                harm = await self._harm(scenario, outcome.situation, flow)
                await asyncio.sleep(LEAD)
            found = await flow.end()
        well = harm.served is not None and await self._settled()
        self._note(outcome, found, harm if well else harm._replace(served=None))
        after = [await _interfaces(end) for end in ends]
        changed = [f"{a} -> {b}" for a, b in zip(before, after, strict=True) if a != b]
        leaks = (await self.mesh.status())["leaks"] if well else []
        outcome.changed += changed
        outcome.leaks += [f"{leak['kind']} {leak['name']}" for leak in leaks]
        return well and not leaks and not changed

    def _note(self, outcome: Outcome, found: Tally, harm: _Aftermath) -> None:
        struck, passed, served = harm
        outcome.sent += found.sent
        outcome.lost += found.lost
        outcome.gap = max(outcome.gap, found.gap / 1e9)
        if served is None:
            outcome.given_up += 1
        elif outcome.promise.wire and RATES[outcome.situation] < RATES[STREAM]:
            outcome.recovery.append(max(passed - struck.at, 0.0))
        elif outcome.promise.wire:
            waited = max(found.gap_end - struck.since, 0) if struck.since else found.gap
            outcome.recovery.append(waited / 1e9)
        else:
            outcome.recovery.append(max(served - struck.at, 0.0))

    def _flow(self, rate: int) -> AbstractAsyncContextManager[Stream]:
        return stream(self.mesh.folder, self.client, self.address, self.faults.places, rate)

    async def _harm(self, scenario: Scenario, situation: str, flow: Stream | None) -> _Aftermath:
        """Do the harm, and make it good in the end."""
        passed = 0.0
        if situation == REQUEST:
            first, patience = SERVICE, PATIENCE + HOLD.get(scenario.what, 0.0)
            if scenario.promise.moves:
                first = own_service((await self.faults.holder())[0])
            struck, served = await asyncio.gather(
                self.faults.strike(scenario, flow, MIDDLE), self._served(first, patience)
            )
        else:
            struck = await self.faults.strike(scenario, flow)
            try:
                await self.faults.moved(scenario)
            except MeshError:
                return _Aftermath(struck, passed, None)
            passes = not scenario.promise.wire or await self._passes()  # before another takes its address
            passed = time.monotonic()
            served = await self._served() if passes else None
        if scenario.promise.wire and not await self._passes():
            served = None
        await self.faults.mend(scenario)
        return _Aftermath(struck, passed, served)

    async def _passes(self) -> bool:
        """Wait until packets pass: a silence ends with one. Say whether they do."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                rows = [row for row in await self.mesh.rows("connections") if row["client"] == "client"]
            except MeshError:
                rows = []
            for row in rows:
                source = row["address"][0].partition("/")[0] if row["address"] else ""
                if await probe.answers(self.client, "nsm-1", source, self.address, ANSWER):
                    return True
            await asyncio.sleep(BREATH)
        return False

    async def _rest(self, scenario: Scenario) -> None:
        """Wait until the supervisor takes none of them for one that always fails."""
        units = await self.faults.units(scenario)
        latest = max((self.faults.killed.get(unit, 0.0) for unit in units), default=0.0)
        await asyncio.sleep(max(0.0, latest + STEADY + 2.0 - time.monotonic()) if latest else 0.0)

    async def _served(self, first: str = SERVICE, patience: float = PATIENCE) -> float | None:
        """Ask for a new wire until there is one; return when it was there, or None.

        ``first``: the service that is asked for until something fails. If it is that of an endpoint which is
        about to die, others are asked once the wire is at one of them, and has its addresses.
        """
        service, end = first, time.monotonic() + patience
        while time.monotonic() < end:
            try:
                await self.mesh.connect(f"kernel://{service}/nsm-1", self.fresh, "fresh")
            except MeshError as error:
                if error.status == Status.ALREADY_EXISTS and await self._has_fresh():
                    return time.monotonic()  # it was granted, and the answer lost with the daemon
                if service != SERVICE:
                    await self._passes()
                    service = SERVICE
                await asyncio.sleep(0.01)
            else:
                return time.monotonic()
        return None

    async def _has_fresh(self) -> bool:
        try:
            rows = await self.mesh.rows("connections")
        except MeshError:
            return False
        return any(row["client"] == "fresh" and row["state"] == "up" for row in rows)

    async def _settled(self) -> bool:
        """Close the new wire, and wait until all is as before; say whether it is."""
        end, closed = time.monotonic() + PATIENCE, False
        while time.monotonic() < end:
            try:
                if not closed:
                    await self.mesh.disconnect("fresh")
                    closed = True
                data = await self.mesh.status()
            except MeshError:
                await asyncio.sleep(0.05)
                continue
            living = [row for row in data["endpoints"] if row["name"] in self.faults.endpoints]
            states = [row["state"] for row in (*data["roles"], *living, *data["clients"])]
            if data["connections"] == 1 and set(states) <= {"running", "ready", "up"}:
                return True
            await asyncio.sleep(0.05)
        return False


async def _interfaces(space: str) -> list[str]:
    """Return name, index, MAC and addresses of the interfaces in a namespace, as text.

    The index of the other end is left out: it says where a wire leads, and the other end is looked at there.
    """
    name = space.rpartition("/")[2]
    done = await programs.run("ip", "-n", name, "-o", "address")
    links = await programs.run("ip", "-n", name, "-o", "link")
    bare = [re.sub(r"@[^:]*", "", line) for line in links.out.splitlines()]
    macs = [" ".join(w for w in line.split() if ":" in w) for line in bare]
    return [*macs, *(" ".join(line.split()[:4]) for line in done.out.splitlines() if " inet " in line)]
