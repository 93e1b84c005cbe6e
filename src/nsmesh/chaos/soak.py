"""A soak: Requests, Closes and faults by chance for a while, and then whether all is as at the start."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from nsmesh.chaos.ground import Ground, ground
from nsmesh.chaos.levels import Level, Sample, level, processes, slope, unlevel
from nsmesh.core.errors import MeshError, TimedOut
from nsmesh.datapath import programs
from nsmesh.standalone.supervisor import STEADY

CLIENTS = 6
UNITS = ("registry", "nsmgr", "forwarder", "alpha", "beta")
PATIENCE = 30.0
"""Seconds within which a Request or a Close is served at last, and all is quiet at the end."""
WARM = 20
"""Wires of each client before the first look: by then a process has loaded what it needs, and its threads."""
YOUTH = 120.0
"""Seconds of a process in which its memory still grows: it fills its pools with some hundred wires."""
PAUSE = 6.0
"""Seconds between two faults, on the average."""
_ENDPOINTS = "---".join(
    f"""
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {{name: {name}}}
spec: {{type: icmp-responder, services: [chaos], options: {{cidr_prefix: 172.30.{number}.0/24}}}}
"""
    for number, name in enumerate(("alpha", "beta"))
)


@dataclass(slots=True)
class Soaked:
    """What a soak did and saw. ``refused``: Requests and Closes that had to be asked again.

    ``unserved``: those that were refused for :data:`PATIENCE` seconds, and why; their client gave up.
    ``silent``: wires that were up at the end and let no packet through. ``unlevel``: what is not as at the
    start. ``slopes``: bytes a second by role.
    """

    seconds: float
    seed: int
    requests: int = 0
    closes: int = 0
    refused: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    unserved: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    unlevel: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    before: Level | None = None
    after: Level | None = None
    slopes: dict[str, float] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Say whether all is as at the start, and every wire that stood let packets through."""
        return not (self.unserved or self.silent or self.unlevel or self.leaks or self.left)

    def rows(self) -> list[dict[str, Any]]:
        """Return what each process held at the start and at the end, and how it grew in between."""
        assert self.before is not None
        assert self.after is not None
        rows = []
        for name, old in self.before.processes.items():
            new = self.after.processes.get(name)
            grown = self.slopes.get(name, float("nan"))
            rows.append(
                {
                    "process": name,
                    "memory_kib": [old.memory >> 10, new.memory >> 10 if new else None],
                    "descriptors": [old.descriptors, new.descriptors if new else None],
                    "threads": [old.threads, new.threads if new else None],
                    "slope_kib_per_minute": None if math.isnan(grown) else round(grown * 60 / 1024, 1),
                }
            )
        return rows

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, in the shape of ``docs/reference/json.md``."""
        names = (
            "seconds",
            "seed",
            "requests",
            "closes",
            "refused",
            "faults",
            "unserved",
            "silent",
            "unlevel",
        )
        found = {name: getattr(self, name) for name in (*names, "leaks", "left", "kept")}
        return {**found, "processes": self.rows()}


async def soak(seconds: float, seed: int) -> Soaked:
    """Soak a mesh of its own for ``seconds``; what comes when is drawn from ``seed``. Raises MeshError."""
    found = Soaked(seconds, seed)
    async with ground("--separate") as mesh:
        await _Soak(mesh, found).run()
    found.left = mesh.left
    return found


class _Soak:
    """One soak under way."""

    def __init__(self, mesh: Ground, found: Soaked) -> None:
        self.mesh, self.found = mesh, found
        self.chance = random.Random(found.seed)  # noqa: S311 - nothing secret, and the same again by its seed
        self.spaces = {f"client{n}": mesh.space(f"client{n}") for n in range(CLIENTS)}
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        self.struck: dict[str, float] = {}
        self.end = 0.0

    async def run(self) -> None:
        """Warm up, look, soak, look again."""
        await self.mesh.apply(_ENDPOINTS)
        for _ in range(WARM):
            await asyncio.gather(*(self._request(name) for name in self.spaces))
            await asyncio.gather(*(self._close(name) for name in self.spaces))
        self.found.before = await self._quiet()
        self.found.requests = self.found.closes = self.found.refused = 0
        self.end = time.monotonic() + self.found.seconds
        works = [self._client(name) for name in self.spaces]
        up = await self._all(*works, self._faults(), self._watch())
        await self._look_through([name for name in up if name])
        await asyncio.gather(*(self._close(name) for name in self.spaces))
        self.found.after = await self._quiet(at_last=True)
        self.found.unlevel += unlevel(self.found.before, self.found.after)
        self.found.leaks = [f"{one['kind']} {one['name']}" for one in (await self.mesh.status())["leaks"]]
        self.found.slopes = {name: slope(samples, YOUTH) for name, samples in self.samples.items()}

    @staticmethod
    async def _all(*works: Coroutine[Any, Any, str]) -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
        return [task.result() for task in tasks]

    async def _insist(self, what: str, ask: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Ask until it is done, as users do; raises TimedOut."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return await ask()
            except MeshError as error:
                self.found.refused += 1
                if time.monotonic() > end:
                    raise TimedOut(f"{what} was not served within {PATIENCE:g} s: {error}") from error
                await asyncio.sleep(0.05)

    async def _request(self, name: str) -> None:
        space = self.spaces[name]
        await self._insist(
            f"a Request of {name}", lambda: self.mesh.connect("kernel://chaos/nsm-1", space, name)
        )
        self.found.requests += 1

    async def _close(self, name: str) -> None:
        async def ask() -> None:
            if any(row["name"] == name for row in (await self.mesh.status())["clients"]):
                await self.mesh.disconnect(name)

        await self._insist(f"a Close of {name}", ask)
        self.found.closes += 1

    async def _client(self, name: str) -> str:
        """Use a wire until the end; return the client's name where it has one then."""
        try:
            return await self._use(name)
        except TimedOut as error:
            self.found.unserved.append(str(error))
            return ""

    async def _use(self, name: str) -> str:
        """Ask for a wire, have it a while, close it, again and again."""
        while time.monotonic() < self.end:
            await self._request(name)
            await asyncio.sleep(self.chance.expovariate(0.5))
            if time.monotonic() < self.end and self.chance.random() < 0.9:
                await self._close(name)
                await asyncio.sleep(self.chance.expovariate(2))
            elif time.monotonic() >= self.end:
                return name
            else:
                await self._close(name)
        return ""

    async def _faults(self) -> str:
        """Harm one process or interface after another, none so often that it would be taken for hopeless."""
        deeds: dict[str, Callable[[], Coroutine[Any, Any, bool]]] = {
            "kill -9": lambda: self._signal(signal.SIGKILL),
            "SIGTERM": lambda: self._signal(signal.SIGTERM),
            "SIGSTOP": self._stop,
            "interface down": lambda: self._interface("set", "nsm-1", "down"),
            "interface deleted": lambda: self._interface("delete", "nsm-1"),
        }
        while time.monotonic() < self.end:
            await asyncio.sleep(min(self.chance.expovariate(1 / PAUSE), self.end - time.monotonic(), 30))
            name = self.chance.choice(list(deeds))
            with suppress(MeshError, ProcessLookupError):
                if await deeds[name]():
                    self.found.faults[name] = self.found.faults.get(name, 0) + 1
        return ""

    async def _unit(self) -> tuple[str, int]:
        now = time.monotonic()
        rested = [unit for unit in UNITS if now - self.struck.get(unit, -STEADY * 2) > STEADY + 2]
        if not rested or now > self.end - 1:
            return "", 0
        unit = self.chance.choice(rested)
        return unit, await self.mesh.pid(unit)

    async def _signal(self, number: signal.Signals) -> bool:
        unit, pid = await self._unit()
        if pid:
            os.kill(pid, number)
            self.struck[unit] = time.monotonic()
        return bool(pid)

    async def _stop(self) -> bool:
        _, pid = await self._unit()
        if not pid:
            return False
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(self.chance.uniform(0.2, 2.0))
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        return True

    async def _interface(self, *words: str) -> bool:
        space = self.chance.choice(list(self.spaces.values())).rpartition("/")[2]
        return (await programs.run("ip", "-n", space, "link", *words)).code == 0

    async def _watch(self) -> str:
        """Look at every process twice a second."""
        while time.monotonic() < self.end:
            with suppress(MeshError):
                for name, one in (await processes(self.mesh)).items():
                    self.samples[name].append(Sample(one.pid, time.monotonic(), one.memory))
            await asyncio.sleep(0.5)
        return ""

    async def _look_through(self, names: list[str]) -> None:
        """Send packets through the wires that stand; note which let none through within some seconds."""
        peers: dict[str, str] = {}
        for row in await self.mesh.rows("connections"):
            if row["peer_address"]:
                peers[row["client"]] = row["peer_address"][0].partition("/")[0]
        for name in names:
            space = self.spaces[name].rpartition("/")[2]
            ping = ("ping", "-c", "1", "-w", "5", peers.get(name, "192.0.2.1"))
            if (await programs.run("ip", "netns", "exec", space, *ping)).code:
                self.found.silent.append(f"{name} to {peers.get(name, 'nobody')}")

    async def _quiet(self, *, at_last: bool = False) -> Level:
        """Wait until no connection is left, all are well and the kernel holds still; return what there is.

        Raises TimedOut; ``at_last`` notes it instead, and waits until all is level with the start.
        """
        end, last, now = time.monotonic() + PATIENCE, None, None
        while time.monotonic() < end:
            with suppress(MeshError):
                data = await self.mesh.status()
                now = await level(self.mesh)
                states = {row["state"] for row in (*data["roles"], *data["endpoints"])}
                calm = not data["connections"] and states <= {"running", "ready", "up"}
                still = calm and last is not None and last.kernel == now.kernel
                if still and (self.found.before is None or not unlevel(self.found.before, now)):
                    return now
                last = now if calm else None
            await asyncio.sleep(1.0)
        if not at_last:
            raise TimedOut(f"the mesh {self.mesh.paths.mesh} is not quiet after {PATIENCE:g} s")
        if last is None:
            self.found.unlevel.append(f"connections or processes, {PATIENCE:g} s after the last Close")
        return now or await level(self.mesh)
