"""Find at a registry of many endpoints: in memory, in a file, and through a manager's mirror.

Run: python bench/registry_find.py [ENDPOINTS]

Prints, side by side: the time of each kind of Find (median and 99th percentile, microseconds, answers
included), what a Register costs, and the memory that the entries take.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

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

SERVICES = 500
FORWARDERS = 50
SECONDS = 1.0
"""How long each measurement runs, about."""


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
    """What was measured of one flavour. ``rows``: what -> (median, 99th percentile) in microseconds."""

    name: str
    rows: dict[str, tuple[float, float]] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    bytes_per_entry: float = 0.0


async def count(handler: Handler, wanted: NetworkServiceEndpointQuery) -> int:
    """Read one Find to its end."""
    found = 0
    async for _ in handler.find(Call(), wanted):
        found += 1
    return found


async def measure(once: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Return median and 99th percentile of ``once`` in microseconds."""
    times = []
    end = time.perf_counter() + SECONDS
    while not times or time.perf_counter() < end:
        begun = time.perf_counter()
        await once()
        times.append((time.perf_counter() - begun) * 1e6)
    times.sort()
    return statistics.median(times), times[int(len(times) * 0.99)]


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


async def run_one(name: str, endpoints: int) -> Result:
    """Fill one flavour and measure it."""
    result = Result(name)
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
            result.rows[what] = await measure(lambda wanted=wanted: count(asked, wanted))
        numbers = iter(range(10**9))
        result.rows["Register again"] = await measure(
            lambda: asked.register(Call(), endpoint(next(numbers) % endpoints))
        )
    return result


def main() -> None:
    """Measure each flavour in a process of its own, so that memory is its own, and print the table."""
    endpoints = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    results = []
    for name in ("memory", "sqlite", "mirror"):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            with os.fdopen(writer, "w") as out:
                json.dump(asdict(asyncio.run(run_one(name, endpoints))), out)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            results.append(Result(**json.load(answer)))
        os.waitpid(child, 0)
    print(f"{endpoints} endpoints, {SERVICES} services; microseconds, median / 99th percentile\n")
    print(f"{'':24}{'answers':>8}" + "".join(f"{result.name:>20}" for result in results))
    for what in results[0].rows:
        cells = "".join("{:>20}".format("{:.0f} / {:.0f}".format(*result.rows[what])) for result in results)
        print(f"{what:24}{results[0].answers.get(what, 1):>8}{cells}")
    sizes = "".join(f"{result.bytes_per_entry:>20.0f}" for result in results)
    print(f"{'bytes per entry':24}{'':>8}{sizes}")


if __name__ == "__main__":
    main()
