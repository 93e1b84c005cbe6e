"""Find at a registry of many endpoints: in memory, in a file, and through a manager's mirror.

Run: python bench/run.py find. Each kind of Find takes its answers in; beside them what a Register costs, and
the memory that the entries take. Flavours run in processes of their own, one after the other, in rounds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from report import Details, Report, row, size

from nsmesh.chains.registry import memory_registry, sqlite_registry
from nsmesh.core.call import Call
from nsmesh.core.element import Chain, Handler, chain
from nsmesh.elements.mirror import Mirror
from nsmesh.model.messages import (
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceLabels,
)
from nsmesh.registry.sqlite import RegistryFile

FLAVOURS = ("memory", "sqlite", "mirror")
AGAIN = "Register again"
SERVICES = 500
FORWARDERS = 50
NAME = "find"


def endpoint(number: int) -> NetworkServiceEndpoint:
    """Return an endpoint of the usual size: one service, a few labels, a manager's URL, three path ids."""
    forwarder = number < FORWARDERS
    service = "forwarder" if forwarder else f"service-{number % SERVICES}"
    labels = {"app": f"app-{number % 7}", "nodeName": f"node-{number % 100}", "podName": f"pod-{number}"}
    return NetworkServiceEndpoint(
        name=f"nse-{number}-7d9c5b6f4-x2x7q",
        network_service_names=[service],
        network_service_labels={service: NetworkServiceLabels(labels=labels)},
        url=f"tcp://10.0.{number % 100}.1:5001",
        path_ids=[f"spiffe://example.org/ns/mesh/sa/{who}" for who in ("nse", "nsmgr", "registry")],
    )


def query(**template: object) -> NetworkServiceEndpointQuery:
    """Return a query without watch."""
    return NetworkServiceEndpointQuery(network_service_endpoint=NetworkServiceEndpoint(**template))


FINDS = {
    "by name": query(name=endpoint(4321 % 1000).name),
    "by service": query(network_service_names=["service-77"]),
    "forwarders of a node": query(network_service_names=["forwarder"], url="tcp://10.0.33.1:5001"),
    "by url, all looked at": query(url="10.0.33.1:5001"),
    "nothing found": query(name="nobody"),
    "everything": query(),
}


@dataclass
class Result:
    """One round of one flavour. ``walls``: what -> seconds of each; ``cpu``: what -> CPU seconds of one."""

    walls: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    bytes_per_entry: float = 0.0

    async def measure(self, what: str, seconds: float, once: Callable[[], Awaitable[object]]) -> None:
        """Do ``once`` again and again for about so many seconds."""
        walls = self.walls[what] = []
        cpu, end = time.process_time(), time.perf_counter() + seconds
        while not walls or time.perf_counter() < end:
            begun = time.perf_counter()
            await once()
            walls.append(time.perf_counter() - begun)
        self.cpu[what] = (time.process_time() - cpu) / len(walls)


async def count(handler: Handler, wanted: NetworkServiceEndpointQuery) -> int:
    """Read one Find to its end."""
    found = 0
    async for _ in handler.find(Call(), wanted):
        found += 1
    return found


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def flavour(name: str) -> AsyncIterator[tuple[Chain, Chain]]:
    """Run one; yield the registry and what is asked."""
    async with AsyncExitStack() as stack:
        if name == "memory":
            registry = memory_registry()
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            file = stack.enter_context(RegistryFile(Path(folder) / "registry.db"))
            registry = sqlite_registry(file)
        await stack.enter_async_context(registry.running())
        if name != "mirror":
            yield registry, registry
            return
        asked = chain(Mirror(), end=registry, name="manager")
        await stack.enter_async_context(asked.running())
        yield registry, asked


async def run_one(name: str, endpoints: int, seconds: float) -> Result:
    """Fill one flavour and measure it."""
    result = Result()
    async with flavour(name) as (registry, asked):
        before = resident()
        for number in range(endpoints):
            await registry.register(Call(), endpoint(number))
        if asked is not registry:
            before = resident()  # what the copy takes, beside the registry that has its own process
            await count(asked, query(name="nobody"))
            while not asked.elements[0].endpoints.synchronised:  # noqa: ASYNC110 - nobody else has to wait
                await asyncio.sleep(0.05)
        result.bytes_per_entry = (resident() - before) / endpoints
        for what, wanted in FINDS.items():
            result.answers[what] = await count(asked, wanted)
            await result.measure(what, seconds, lambda wanted=wanted: count(asked, wanted))
        numbers = iter(range(10**9))
        await result.measure(
            AGAIN, seconds, lambda: asked.register(Call(), endpoint(next(numbers) % endpoints))
        )
    return result


def in_child(name: str, endpoints: int, seconds: float) -> Result:
    """Measure one flavour in a process of its own, so that memory is its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as out:
            json.dump(asdict(asyncio.run(run_one(name, endpoints, seconds))), out)
        os._exit(0)
    os.close(writer)
    try:
        with os.fdopen(reader) as answer:
            return Result(**json.load(answer))
    finally:
        os.waitpid(child, 0)


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure every flavour; a store in memory is what the others are compared with."""
    rounds, endpoints, seconds = (1, 500, 0.02) if short else (3, 5000, 0.3)
    found: dict[str, list[Result]] = {name: [] for name in FLAVOURS}
    for _ in range(rounds):
        for name, results in found.items():
            results.append(in_child(name, endpoints, seconds))
    report = Report()
    base = found[FLAVOURS[0]]
    for what in (*FINDS, AGAIN):
        for name, results in found.items():
            walls = [wall for one in results for wall in one.walls[what]]
            cpu, to = [one.cpu[what] for one in results], [one.cpu[what] for one in base]
            title = what if what == AGAIN else f"Find {what} ({results[0].answers[what]} found)"
            report.rows.append(row(title, name, walls, cpu, to, to=FLAVOURS[0]))
    sizes = [size(statistics.median(one.bytes_per_entry for one in results)) for results in found.values()]
    report.details.append(Details(f"{endpoints} endpoints", ("registry", *found), [("per entry", *sizes)]))
    return report
