"""A process under measurement: a client, or the whole mesh in one process; told by lines of JSON what to do.

Started by ``meshes.py`` alone. One line on stdin is one command, one line on stdout its answer; the end of
stdin ends it. Times are in seconds, numbers name connections: a number stands for the same connection
throughout.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nsmesh import rpc
from nsmesh.chains.client import client
from nsmesh.chains.endpoint import endpoint, registration
from nsmesh.chains.registry import running_registry
from nsmesh.chains.roles import registered, running_forwarder, running_nsmgr
from nsmesh.chains.runtime import Runtime, runtime, served
from nsmesh.chains.settings import ForwarderSettings, NsmgrSettings, RegistrySettings
from nsmesh.chains.workload_api import served_workload_api
from nsmesh.core import garbage, logging
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain
from nsmesh.core.errors import MeshError
from nsmesh.datapath.base import Datapath
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.elements.ipam import Ipam
from nsmesh.elements.peer import RemotePeers
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    KERNEL,
    LOCAL,
    Connection,
    Mechanism,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceRequest,
)
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.entries import Entries, Template
from nsmesh.security.workload_api import WorkloadApi

SERVICE = "bench"
"""Short, so that the generated half of an interface name is long: a thousand of them share a namespace."""
PREFIX = "172.16.0.0/12"
DOMAIN = "bench.mesh"
LIFETIME = 3600.0
"""Seconds that a wire lives without a refresh: none comes by itself while something else is measured."""
PATIENCE = 15.0
"""Seconds within which the first Request must succeed."""


@dataclass(frozen=True, slots=True)
class Config:
    """What to be. ``part``: ``client``, ``authority`` (the Workload API) or ``whole`` (all roles of a mesh).

    ``ends`` false leaves the endpoint out of the whole. ``folder`` holds the sockets; ``spaces`` are the
    namespaces of clients, ``far`` is the endpoint's; without ``kernel`` wires are drawn in memory alone. An
    empty ``workload_api`` means: no identities.
    """

    part: str
    folder: str
    spaces: tuple[str, ...]
    far: str
    kernel: bool = True
    ends: bool = True
    workload_api: str = ""

    def url(self, role: str) -> str:
        """Return where a role listens."""
        return f"unix://{self.folder}/{role}.sock"


def request_of(number: int, spaces: tuple[str, ...]) -> NetworkServiceRequest:
    """Return a first Request: a kernel wire into one of the namespaces in turn."""
    parameters = {"inodeURL": f"file://{spaces[number % len(spaces)]}", "name": f"b{number}"}
    return NetworkServiceRequest(
        connection=Connection(
            id=f"bench-{number}", network_service=SERVICE, labels={"app": "bench", "podName": f"pod-{number}"}
        ),
        mechanism_preferences=[Mechanism(cls=LOCAL, type=KERNEL, parameters=parameters)],
    )


class Driver:
    """Does what the commands say through a client's chain."""

    def __init__(self, chain: Chain, config: Config, held: Runtime) -> None:
        self._chain = chain
        self._config = config
        self._held = held
        self._connections: dict[int, Connection] = {}

    async def begin(self) -> None:
        """Ask until the mesh is ready, then close again."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                await self._request(0)
                break
            except MeshError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.05)
        await self._close(0)

    async def do(self, verb: str, first: int, last: int, in_flight: int) -> dict[str, Any]:
        """Do ``verb`` to each number from ``first`` to ``last - 1``; return times, and our own CPU time."""
        work = {
            "request": self._request,
            "refresh": self._refresh,
            "close": self._close,
            "anew": self._anew,
        }[verb]
        times: list[float] = []
        numbers = iter(range(first, last))
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(_each(numbers, work, times) for _ in range(in_flight)))
        return {"wall": times, "took": time.perf_counter() - began, "cpu": time.process_time() - cpu}

    @staticmethod
    def _call() -> Call:
        return Call(peer=Peer(in_process=True)).within(30.0)

    async def _request(self, number: int) -> None:
        request = request_of(number, self._config.spaces)
        self._connections[number] = await self._chain.request(self._call(), request)

    async def _refresh(self, number: int) -> None:
        request = NetworkServiceRequest(connection=copy_of(self._connections[number]))
        self._connections[number] = await self._chain.request(self._call(), request)

    async def _close(self, number: int) -> None:
        await self._chain.close(self._call(), self._connections.pop(number))

    async def _anew(self, number: int) -> float:
        """Request over a connection of its own, and close; return the time from the dial to the answer."""
        held = self._held
        pool = rpc.Pool(identity=held.identity, timeout=PATIENCE)
        chain = client(
            "client",
            manager=self._config.url("nsmgr"),
            peers=RemotePeers(pool),
            tokens=held.tokens,
            checks=held.checks(),
        )
        try:
            async with chain.running():
                began = time.perf_counter()
                connection = await chain.request(self._call(), request_of(number, self._config.spaces))
                took = time.perf_counter() - began
                await chain.close(self._call(), connection)
        finally:
            await pool.aclose()
        return took


async def _each(
    numbers: Iterator[int], work: Callable[[int], Awaitable[float | None]], times: list[float]
) -> None:
    for number in numbers:
        began = time.perf_counter()
        took = await work(number)
        times.append(time.perf_counter() - began if took is None else took)


@asynccontextmanager
async def whole(config: Config, held: Runtime) -> AsyncIterator[None]:
    """Run registry, manager, forwarder and, where it ``ends`` here, the endpoint in this process."""
    datapath: Datapath = LinuxDatapath(owner="forwarder:bench") if config.kernel else FakeDatapath()
    front = held.registry_front()
    async with AsyncExitStack() as stack:
        registry = RegistrySettings(listen_on=(config.url("registry"),))
        await stack.enter_async_context(running_registry(registry, held, sqlite=False, front=front))
        manager = NsmgrSettings(
            name="nsmgr", listen_on=(config.url("nsmgr"),), registry_url=config.url("registry")
        )
        await stack.enter_async_context(running_nsmgr(manager, held))
        forwarder = ForwarderSettings(connect_to=config.url("nsmgr"), listen_on=config.url("forwarder"))
        await stack.enter_async_context(running_forwarder(forwarder, held, datapath, [Kernel()]))
        if config.ends:
            await _endpoint(config, held, stack)
        yield


async def _endpoint(config: Config, held: Runtime, stack: AsyncExitStack) -> None:
    chain = endpoint(
        "nse",
        Ipam(((PREFIX,),)),
        mechanisms=[Kernel(inode_url=f"file://{config.far}")],
        tokens=held.tokens,
        policies=held.policies(),
        clock=held.clock,
        journal=held.journal,
    )
    await stack.enter_async_context(chain.running())
    urls = await stack.enter_async_context(served(held, (config.url("nse"),), chain))
    register = registration(
        "nse",
        manager=config.url("nsmgr"),
        peers=held.peers,
        tokens=held.tokens,
        checks=held.registry_checks(),
    )
    await stack.enter_async_context(register.running())
    entry = NetworkServiceEndpoint(name="nse", network_service_names=[SERVICE], url=urls[0])
    await stack.enter_async_context(registered(register, [NetworkService(name=SERVICE, payload="IP"), entry]))


def figures() -> dict[str, Any]:
    """Return what this process holds that only it can count. ``due``: seconds until each timer."""
    gc.collect()
    loop = asyncio.get_running_loop()
    timers = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined] # noqa: SLF001 - asyncio shows its timers nowhere else
    now = loop.time()
    return {
        "tasks": len(asyncio.all_tasks()),
        "timers": len(timers),
        "due": sorted(round(handle.when() - now, 1) for handle in timers),
    }


async def obey(driver: Driver | None) -> None:
    """Read commands and answer them, until there are no more."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say({"ready": True})
    while line := await reader.readline():
        command = json.loads(line)
        if command["verb"] == "figures":
            _say(figures())
        elif driver is not None:
            _say(await driver.do(**command))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def authority(config: Config) -> None:
    """Be the Workload API: each process gets an identity of its own."""
    ca = CertificateAuthority.open(Path(config.folder) / "ca", DOMAIN)
    entries = Entries(template=Template("spiffe://{trust_domain}/pid/{pid}", DOMAIN))
    async with served_workload_api(WorkloadApi(ca, entries), config.workload_api):
        await obey(None)


async def main(config: Config) -> None:
    """Be what the configuration says."""
    if config.part == "authority":
        await authority(config)
        return
    async with AsyncExitStack() as stack:
        held = await stack.enter_async_context(
            runtime(lifetime=LIFETIME, dial_timeout=2.0, workload_api=config.workload_api)
        )
        if config.part == "whole":
            await stack.enter_async_context(whole(config, held))
        chain = client(
            "client",
            manager=config.url("nsmgr"),
            peers=held.peers,
            tokens=held.tokens,
            checks=held.checks(),
            clock=held.clock,
        )
        await stack.enter_async_context(chain.running())
        driver = Driver(chain, config, held)
        await driver.begin()
        await obey(driver)


if __name__ == "__main__":
    logging.configure(role="bench")
    given = json.loads(sys.argv[1])
    garbage.settle()
    asyncio.run(main(Config(**{**given, "spaces": tuple(given["spaces"])})))
