"""Runs scenarios: a stream through a wire, a fault, a new Request, and what became of all of it."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nsmesh.chaos.ground import Ground, ground
from nsmesh.chaos.scenarios import KILL, LOSE, SERVED, STOP, TERM, Scenario
from nsmesh.chaos.streams import stream
from nsmesh.core.errors import MeshError
from nsmesh.core.process import start_ticks
from nsmesh.datapath import netns, programs
from nsmesh.standalone.supervisor import STEADY

RATE = 10_000
"""Packets a second."""
LEAD = 0.5
"""Seconds that a stream flows before the fault."""
PATIENCE = 30.0
"""Seconds until a mesh that is not well again is given up."""
HOLD = 2.0
"""Seconds that a stopped process is stopped."""
_SIGNALS = {KILL: signal.SIGKILL, LOSE: signal.SIGKILL, TERM: signal.SIGTERM, STOP: signal.SIGSTOP}
_RESPONDER = """
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {name: alpha}
spec: {type: icmp-responder, services: [chaos], options: {cidr_prefix: 172.30.0.0/24}%s}
"""


@dataclass(slots=True)
class Outcome:
    """What repetitions of a scenario showed; times in seconds. ``given_up``: how often it never was well."""

    name: str
    scenario: Scenario
    sent: int = 0
    lost: int = 0
    gap: float = 0.0
    recovery: list[float] = field(default_factory=list)
    given_up: int = 0
    changed: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Return it as plain data, in the shape of ``docs/reference/json.md``."""
        late = _quantile(self.recovery, 0.99)
        well = not (self.lost or self.changed or self.leaks or self.given_up)
        return {
            "scenario": self.name,
            "who": list(self.scenario.who),
            "where": self.scenario.where,
            "what": self.scenario.what,
            "situation": "stream",
            "repetitions": len(self.recovery) + self.given_up,
            "sent": self.sent,
            "lost": self.lost,
            "longest_gap_ms": round(self.gap * 1e3, 1),
            "recovery": "new Request served",
            "recovery_p50_ms": _milliseconds(_quantile(self.recovery, 0.5)),
            "recovery_p99_ms": _milliseconds(late),
            "not_recovered": self.given_up,
            "changed": self.changed,
            "leaks": self.leaks,
            "promised": f"0 lost, nothing changed, new Request < {SERVED:g} s",
            "kept": well and late is not None and late < SERVED,
        }


def _quantile(values: Sequence[float], part: float) -> float | None:
    return sorted(values)[max(math.ceil(part * len(values)) - 1, 0)] if values else None


def _milliseconds(value: float | None) -> float | None:
    return None if value is None else round(value * 1e3, 1)


async def run(scenarios: dict[str, Scenario], repeat: int) -> AsyncIterator[Outcome]:
    """Run each scenario ``repeat`` times, those on a mesh of one kind in turn; yield what was seen."""
    kinds = dict.fromkeys(one.options for one in scenarios.values())
    for options in kinds:
        outcomes = [Outcome(name, one) for name, one in scenarios.items() if one.options == options]
        async with ground(*options) as mesh:
            field_ = _Field(mesh)
            await field_.prepare()
            for _ in range(repeat):
                for outcome in outcomes:
                    await field_.once(outcome)
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

    async def once(self, outcome: Outcome) -> None:
        """Do it once, and note what was seen; a mesh that is not well again is waited for."""
        scenario = outcome.scenario
        await self._rest(scenario)
        before = [await _interfaces(end) for end in self.ends]
        async with stream(self.mesh.folder, self.ends[0], self.address, self.ends[1:], RATE) as flow:
            await asyncio.sleep(LEAD)
            begin = await self._strike(scenario)
            served = await self._served()
            well = await self._settled()
            found = await flow.end()
        outcome.sent += found.sent
        outcome.lost += found.lost
        outcome.gap = max(outcome.gap, found.gap / 1e9)
        if served is None or not well:
            outcome.given_up += 1
        else:
            outcome.recovery.append(served - begin)
        after = [await _interfaces(end) for end in self.ends]
        outcome.changed += [f"{a} -> {b}" for a, b in zip(before, after, strict=True) if a != b]
        outcome.leaks += [f"{leak['kind']} {leak['name']}" for leak in (await self.mesh.status())["leaks"]]

    async def _rest(self, scenario: Scenario) -> None:
        """Wait until the supervisor takes none of them for one that always fails."""
        latest = max((self._struck.get(unit, 0.0) for unit in scenario.who), default=0.0)
        await asyncio.sleep(max(0.0, latest + STEADY + 2.0 - time.monotonic()) if latest else 0.0)

    async def _strike(self, scenario: Scenario) -> float:
        """Do the harm; return from when on the recovery counts."""
        pids = [await self.mesh.pid(unit) for unit in scenario.who]
        if scenario.what == LOSE:
            for file in scenario.state(self.mesh):
                file.unlink(missing_ok=True)
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
