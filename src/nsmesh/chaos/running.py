"""Runs scenarios: a stream through a wire, a fault, a new Request, and what became of all of it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from nsmesh.chaos.ground import Ground, ground
from nsmesh.chaos.outcomes import Outcome
from nsmesh.chaos.scenarios import DOWN, IDLE, KILL, LOSE, RATES, REQUEST, STOP, TERM, Scenario
from nsmesh.chaos.streams import Stream, stream
from nsmesh.core.errors import Internal, MeshError
from nsmesh.core.process import start_ticks
from nsmesh.datapath import netns, programs
from nsmesh.standalone.supervisor import STEADY

PROBE = 1_000
"""Packets a second that look at a wire on which nothing went on."""
LOOK = 0.3
"""Seconds that they do."""
LEAD = 0.5
"""Seconds that a stream flows before the fault."""
PATIENCE = 15.0
"""Seconds until a mesh that is not well again is given up."""
MIDDLE = 0.02
"""Seconds within which a Request is still under way."""
HOLD = 2.0
"""Seconds that a stopped process is stopped."""
_SIGNALS = {KILL: signal.SIGKILL, LOSE: signal.SIGKILL, TERM: signal.SIGTERM, STOP: signal.SIGSTOP}
_RESPONDER = """
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {name: alpha}
spec: {type: icmp-responder, services: [chaos], options: {cidr_prefix: 172.30.0.0/24}%s}
"""


async def run(scenarios: dict[str, Scenario], repeat: int, situation: str) -> AsyncIterator[Outcome]:
    """Run each scenario ``repeat`` times, those on a mesh of one kind in turn; yield what was seen.

    A mesh that does not get well is replaced: what it suffers is not what the next fault does.
    """
    kinds = dict.fromkeys(one.options for one in scenarios.values())
    for options in kinds:
        mine = [(name, one) for name, one in scenarios.items() if one.options == options]
        outcomes = [Outcome(name, one, situation) for name, one in mine]
        waiting = [outcome for _ in range(repeat) for outcome in outcomes]
        while waiting:
            tried = []
            async with ground(*options) as mesh:
                field = _Field(mesh)
                await field.prepare()
                while waiting:
                    tried.append(waiting.pop(0))
                    if not await field.once(tried[-1]):
                        break
            tried[-1].leaks += mesh.left
        for outcome in outcomes:
            yield outcome


class _Field:
    """A mesh with a wire, and what is done to it."""

    def __init__(self, mesh: Ground) -> None:
        self.mesh = mesh
        self.ends: list[str] = []
        self.address = ""
        self.fresh = ""
        self._struck: dict[str, float] = {}

    async def prepare(self) -> None:
        """Make endpoint and client: on two nodes, one on each."""
        mesh, apart = self.mesh, "--nodes" in self.mesh.options
        await mesh.apply(_RESPONDER % (", node: node2" if apart else ""))
        client, self.fresh = mesh.space("client"), mesh.space("fresh")
        await mesh.connect("kernel://chaos/nsm-1", client, "client", "node1" if apart else "")
        (row,) = await mesh.rows("connections")
        self.address = row["peer_address"][0].partition("/")[0]
        self.ends = [client, f"{netns.RUN_NETNS}/{mesh.paths.netns('alpha')}"]

    async def once(self, outcome: Outcome) -> bool:
        """Do it once, note what was seen, and say whether the mesh is well again."""
        scenario = outcome.scenario
        await self._rest(scenario)
        before = [await _interfaces(end) for end in self.ends]
        if outcome.situation == IDLE:
            begin, served, well = await self._harm(scenario, IDLE)
        async with self._flow(RATES[outcome.situation] or PROBE) as flow:
            await asyncio.sleep(LOOK if outcome.situation == IDLE else LEAD)
            if outcome.situation != IDLE:
                begin, served, well = await self._harm(scenario, outcome.situation)
            found = await flow.end()
        outcome.sent += found.sent
        outcome.lost += found.lost
        outcome.gap = max(outcome.gap, found.gap / 1e9)
        if served is None or not well:
            outcome.given_up += 1
        elif scenario.wire:
            outcome.recovery.append(found.gap / 1e9)
        else:
            outcome.recovery.append(max(served - begin, 0.0))
        after = [await _interfaces(end) for end in self.ends]
        outcome.changed += [f"{a} -> {b}" for a, b in zip(before, after, strict=True) if a != b]
        leaks = (await self.mesh.status())["leaks"] if well else []
        outcome.leaks += [f"{leak['kind']} {leak['name']}" for leak in leaks]
        return served is not None and well

    def _flow(self, rate: int) -> AbstractAsyncContextManager[Stream]:
        return stream(self.mesh.folder, self.ends[0], self.address, self.ends[1:], rate)

    async def _harm(self, scenario: Scenario, situation: str) -> tuple[float, float | None, bool]:
        """Return when the harm was done, when a Request was served, and whether all was as before at last."""
        if situation == REQUEST:
            begin, served = await asyncio.gather(self._strike(scenario, MIDDLE), self._served())
        else:
            begin = await self._strike(scenario)
            served = await self._served()
        return begin, served, await self._settled()

    async def _rest(self, scenario: Scenario) -> None:
        """Wait until the supervisor takes none of them for one that always fails."""
        latest = max((self._struck.get(unit, 0.0) for unit in scenario.who), default=0.0)
        await asyncio.sleep(max(0.0, latest + STEADY + 2.0 - time.monotonic()) if latest else 0.0)

    async def _strike(self, scenario: Scenario, longest: float = 0.0) -> float:
        """Do the harm, after ``longest`` seconds at the most; return from when on the recovery counts."""
        if scenario.wire:
            return await self._cut(scenario)
        pids = [await self.mesh.pid(unit) for unit in scenario.who]
        if scenario.what == LOSE:
            for file in scenario.state(self.mesh):
                file.unlink(missing_ok=True)
        await asyncio.sleep(random.uniform(0.0, longest))  # noqa: S311 - any moment of a Request
        begin = time.monotonic()
        for pid in pids:
            os.kill(pid, _SIGNALS[scenario.what])
        if scenario.what == STOP:
            try:
                await asyncio.sleep(HOLD)
            finally:
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)
            return time.monotonic()
        while any(start_ticks(pid) is not None for pid in pids):  # noqa: ASYNC110 - the kernel's doing
            await asyncio.sleep(0.002)
        self._struck |= dict.fromkeys(scenario.who, time.monotonic())
        if "daemon" in scenario.who:
            await self.mesh.up()
        return begin

    async def _cut(self, scenario: Scenario) -> float:
        """Harm the client's interface as somebody with the right to do so."""
        space, begin = self.ends[0].rpartition("/")[2], time.monotonic()
        words = ("set", "nsm-1", "down") if scenario.what == DOWN else ("delete", "nsm-1")
        await programs.demand(Internal, "ip", "-n", space, "link", *words)
        return begin

    async def _served(self) -> float | None:
        """Ask for a new wire until there is one; return when it was there, or None."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                await self.mesh.connect("kernel://chaos/nsm-1", self.fresh, "fresh")
            except MeshError:
                await asyncio.sleep(0.01)
            else:
                return time.monotonic()
        return None

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
            states = [row["state"] for row in (*data["roles"], *data["endpoints"], *data["clients"])]
            if data["connections"] == 1 and set(states) <= {"running", "ready", "up"}:
                return True
            await asyncio.sleep(0.05)
        return False


async def _interfaces(space: str) -> list[str]:
    """Return name, index, MAC and addresses of the interfaces in a namespace, as text."""
    name = space.rpartition("/")[2]
    done = await programs.run("ip", "-n", name, "-o", "address")
    links = await programs.run("ip", "-n", name, "-o", "link")
    macs = [" ".join(w for w in line.split() if ":" in w) for line in links.out.splitlines()]
    return [*macs, *(" ".join(line.split()[:4]) for line in done.out.splitlines() if " inet " in line)]
