"""How each kind of harm is done to a mesh, and how it is made good afterwards."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from nsmesh.chaos.ground import Ground
from nsmesh.chaos.scenarios import (
    CLOCKS,
    CUT,
    DIES,
    DOWN,
    FULL,
    GONE,
    HOLD,
    KILL,
    LONG_CUT,
    LONG_STOP,
    LOSE,
    RESTART,
    STOP,
    TERM,
    UPGRADE,
    Scenario,
)
from nsmesh.chaos.streams import Stream
from nsmesh.core.errors import Internal, MeshError, TimedOut
from nsmesh.core.process import start_ticks
from nsmesh.datapath import netns, programs
from nsmesh.datapath.ovs_own import PROGRAMS
from nsmesh.standalone.underlay import LINK

AWAY = 1.0
"""Seconds for which there is no endpoint at all, where all die."""
PATIENCE = 15.0
"""Seconds within which a wire is at another endpoint."""
_SIGNALS = {KILL: signal.SIGKILL, LOSE: signal.SIGKILL, TERM: signal.SIGTERM}
_FILLER = "filler"
_RESPONDER = """
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {name: %s}
spec: {type: icmp-responder, services: [%s, %s], options: {cidr_prefix: 172.30.0.0/24}%s}
"""
SERVICE = "chaos"
"""What all endpoints offer, beside a service of their own."""


def own_service(endpoint: str) -> str:
    """Return the service that an endpoint alone offers, and whoever takes its place."""
    return endpoint.partition("-")[0]


class Struck(NamedTuple):
    """When harm was done, or ended where it ends by itself: by ``time.monotonic``.

    ``since``: nanoseconds since 1970 from when packets can pass again; 0 where that is at once.
    """

    at: float
    since: int = 0


class Faults:
    """Harms one mesh, in which the client has one wire.

    ``endpoints``: their nodes, by name. ``killed``: when each process was, last.
    """

    def __init__(self, mesh: Ground, client: str) -> None:
        self._mesh = mesh
        self._client = client
        self._mend: list[str] = []
        self._node = ""
        self._made = itertools.count()
        self.endpoints: dict[str, str] = {}
        self.killed: dict[str, float] = {}

    async def populate(self, endpoints: Iterable[tuple[str, str]]) -> None:
        """Make endpoints, by name and node ('' on the only one); raises MeshError."""
        for name, node in endpoints:
            where = f", node: {node}" if node else ""
            await self._mesh.apply(_RESPONDER % (name, SERVICE, own_service(name), where))
            self.endpoints[name] = node

    @property
    def places(self) -> list[str]:
        """The namespaces of the endpoints, by path."""
        return [self.place(name) for name in self.endpoints]

    def place(self, endpoint: str) -> str:
        """Return the path of an endpoint's namespace."""
        return f"{netns.RUN_NETNS}/{self._mesh.paths.netns(endpoint)}"

    async def holder(self) -> tuple[str, str]:
        """Return the endpoint, and its node, that the client's wire leads to; raises MeshError."""
        for row in await self._mesh.rows("connections"):
            if row["client"] == "client" and row["state"] == "up":
                return str(row["endpoint"] or ""), str((row["nodes"] or [""])[-1] or "")
        return "", ""

    async def units(self, scenario: Scenario) -> list[str]:
        """Return the processes that suffer; raises MeshError."""
        endpoint, node = await self.holder()
        if scenario.who == ("node",):
            return [f"nsmgr-{node}", f"forwarder-{node}", endpoint] if scenario.what == GONE else []
        if scenario.who == ("endpoints",):
            return list(self.endpoints)
        if scenario.who == ("switch",):
            return list(PROGRAMS)
        return [endpoint if unit == "endpoint" else unit for unit in scenario.who]

    async def strike(self, scenario: Scenario, flow: Stream | None, longest: float = 0.0) -> Struck:
        """Do it, after ``longest`` seconds at the most; raises MeshError."""
        if scenario.who == ("client",):
            return await self._touch(scenario)
        if scenario.what == FULL or scenario.what in CLOCKS:
            return await self._machine(scenario)
        if scenario.what in {CUT, LONG_CUT, GONE}:
            return await self._cut(scenario)
        if scenario.what in {RESTART, UPGRADE}:
            return await self._renew(scenario, longest)
        units = await self.units(scenario)
        if scenario.what == DIES:
            return await self._bury(scenario, units, flow)
        return await self._signal(scenario, units, longest)

    async def _signal(self, scenario: Scenario, units: Sequence[str], longest: float) -> Struck:
        pids = [await self._mesh.pid(unit) for unit in units]
        if scenario.what == LOSE:
            for file in scenario.state(self._mesh):
                file.unlink(missing_ok=True)
        await asyncio.sleep(random.uniform(0.0, longest))  # noqa: S311 - any moment of a Request
        if scenario.what in {STOP, LONG_STOP}:
            return await self._hold(pids, HOLD[scenario.what])
        return await self._end(units, pids, _SIGNALS[scenario.what])

    async def mend(self, scenario: Scenario) -> None:
        """Bring back what does not come back by itself; raises MeshError."""
        if scenario.what == FULL:
            (self._mesh.paths.run / _FILLER).unlink()
        if scenario.what in CLOCKS:
            self._set_clock(0)
        if scenario.what == GONE:
            await self._link(self._node, "up")
        if self._mend:
            await self._again(self._mend)

    async def moved(self, scenario: Scenario) -> None:
        """Wait until the wire is not where it cannot stay; raises TimedOut."""
        if not self._mend and scenario.what != GONE:
            return
        end = time.monotonic() + PATIENCE
        gone, node = self._mend, self._node if scenario.what == GONE else "none"
        while (place := await self.holder())[0] in {"", *gone} or place[1] == node:
            if time.monotonic() > end:
                raise TimedOut(f"the wire is still at {place[0] or 'no endpoint'} after {PATIENCE:g} s")
            await asyncio.sleep(0.02)

    async def _end(self, units: Sequence[str], pids: Sequence[int], number: signal.Signals) -> Struck:
        begin = time.monotonic()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        while any(start_ticks(pid) is not None for pid in pids):  # noqa: ASYNC110 - the kernel's doing
            await asyncio.sleep(0.002)
        self.killed |= dict.fromkeys(units, time.monotonic())
        if "daemon" in units:
            await self._mesh.up()
        return Struck(begin)

    async def _renew(self, scenario: Scenario, longest: float) -> Struck:
        """Restart or upgrade as its operator does; the time counts from when the command is done."""
        await asyncio.sleep(random.uniform(0.0, longest))  # noqa: S311 - any moment of a Request
        words = [] if scenario.what == UPGRADE else ["all" if who == "mesh" else who for who in scenario.who]
        await self._mesh.command(scenario.what, *words)
        return Struck(time.monotonic())

    async def _hold(self, pids: Sequence[int], seconds: float) -> Struck:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        return Struck(time.monotonic())

    async def _touch(self, scenario: Scenario) -> Struck:
        """Harm the client's interface as somebody with the right to do so."""
        space, begin = self._client.rpartition("/")[2], time.monotonic()
        words = ("set", "nsm-1", "down") if scenario.what == DOWN else ("delete", "nsm-1")
        await programs.demand(Internal, "ip", "-n", space, "link", *words)
        return Struck(begin)

    async def _link(self, node: str, state: str) -> None:
        space = self._mesh.paths.netns(node)
        await programs.demand(Internal, "ip", "-n", space, "link", "set", LINK, state)

    async def _cut(self, scenario: Scenario) -> Struck:
        """Cut the node off; for good with all of its processes, or for a while."""
        _, self._node = await self.holder()
        units = await self.units(scenario)
        pids = [await self._mesh.pid(unit) for unit in units]
        begin = time.monotonic()
        await self._link(self._node, "down")
        if scenario.what == GONE:
            self._mend = units[-1:]  # a node that is started again has nothing of what it had
            return (await self._end(units, pids, signal.SIGKILL))._replace(at=begin)
        await asyncio.sleep(HOLD[scenario.what])
        await self._link(self._node, "up")
        return Struck(time.monotonic(), time.time_ns() if scenario.what == LONG_CUT else 0)

    async def _bury(self, scenario: Scenario, units: Sequence[str], flow: Stream | None) -> Struck:
        """Kill endpoints, and whoever else lives in their namespaces, as pods that are killed."""
        pids = [await self._mesh.pid(unit) for unit in units]
        places = [self.place(unit) for unit in units]
        if flow is not None:
            flow.hush(*places)
        struck = await self._end(units, pids, signal.SIGKILL)
        for unit in units:
            netns.delete(self._mesh.paths.netns(unit))
        if flow is not None:
            await flow.leave(*places)
        self._mend = list(units)
        if scenario.who != ("endpoints",):
            return struck
        await asyncio.sleep(AWAY)
        await self._again(units)
        struck = Struck(time.monotonic(), time.time_ns())
        if flow is not None:  # its start counts too: what comes before it is seen by nobody
            await flow.join(*self.places)
        return struck

    async def _again(self, units: Sequence[str]) -> None:
        """Make others in the place of endpoints that have died; what these had registered ends by itself."""
        for unit in units:
            with suppress(MeshError):
                await self._mesh.delete("endpoints", unit)
            await self.populate([(f"{own_service(unit)}-{next(self._made)}", self.endpoints.pop(unit))])
        self._mend = []

    async def _machine(self, scenario: Scenario) -> Struck:
        """Harm the machine as it is for this mesh alone."""
        if scenario.what == FULL:
            return await asyncio.to_thread(self._fill)
        return self._set_clock(CLOCKS[scenario.what])

    def _set_clock(self, seconds: int) -> Struck:
        assert self._mesh.clock is not None
        self._mesh.clock.put(seconds)
        return Struck(time.monotonic())

    def _fill(self) -> Struck:
        """Fill the file system of the run directory to the last byte."""
        begin = time.monotonic()
        with (self._mesh.paths.run / _FILLER).open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(b"x" * size):
                        pass
        return Struck(begin)
