"""Ten thousand connections over a domain of twenty nodes: whether the last cost what the first did.

Run: python bench/run.py domain. One process of its own has a registry and, for each node, a manager, a
forwarder, an endpoint and a client, all called in memory; wires and tunnels are drawn on paper, so what is
seen is the control path alone. Each client asks for the one service that all endpoints offer, so nineteen in
twenty wires cross from node to node. A second such process, empty again after each thousand, takes turns with
it: the ratio of both is what growth costs, and not what the machine did meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from processes import Process, memory_of
from report import Details, Report, duration, row, size

from nsmesh.chains.client import client
from nsmesh.chains.endpoint import endpoint
from nsmesh.chains.forwarder import Forwarder
from nsmesh.chains.nsmgr import Nsmgr
from nsmesh.core import garbage, logging
from nsmesh.core.call import Call
from nsmesh.core.clock import SystemClock
from nsmesh.core.element import Chain, Handler
from nsmesh.core.errors import Unavailable
from nsmesh.core.tokens import PlainTokens
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements.ipam import Ipam
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.vxlan import Vxlan
from nsmesh.model.messages import (
    Connection,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
    NetworkServiceRequest,
)
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE

NAME = "domain"
NODES = 20
LIFETIME = 36_000.0
"""Seconds: no refresh comes by itself while something is measured."""
IN_FLIGHT = 8
DEADLINE = 15.0
SERVED = "intranet"


class Neighbours:
    """Everybody by URL, in memory."""

    def __init__(self) -> None:
        self.known: dict[str, Handler] = {}

    async def get(self, url: str) -> Handler:
        """Return who listens at ``url``; raises Unavailable."""
        if url not in self.known:
            raise Unavailable(f"nobody listens at {url}")
        return self.known[url]


class Node:
    """One node: manager, forwarder, endpoint and client, on a kernel of paper."""

    def __init__(self, number: int, registry: Handler, peers: Neighbours) -> None:
        clock = SystemClock()
        tokens = PlainTokens(clock, LIFETIME)
        ip = f"192.0.2.{number}"
        self.number = number
        self.datapath = FakeDatapath()
        url = f"tcp://{ip}:5001"
        self.manager = Nsmgr(f"nsmgr{number}", url, registry=registry, peers=peers, tokens=tokens)
        vxlan = Vxlan(ip, link_mtu=lambda: 1500, random=Random(number))
        self.forwarder = Forwarder(
            f"fwd{number}",
            registry=self.manager.registry,
            datapath=self.datapath,
            mechanisms=[Kernel(), vxlan],
            peers=peers,
            tokens=tokens,
            lifetime=LIFETIME,
        )
        inside = Kernel(inode_url=f"file:///run/netns/nse{number}")
        ipam = Ipam([[f"10.{number}.0.0/16"]])
        self.endpoint = endpoint(f"nse{number}", ipam, mechanisms=[inside], tokens=tokens)
        self.client = client(f"nsc{number}", manager=self.manager.server, peers=peers, tokens=tokens)
        peers.known[url] = self.manager.server
        peers.known[f"unix:///nse{number}"] = self.endpoint
        peers.known[f"unix:///fwd{number}"] = self.forwarder.server

    @property
    def chains(self) -> tuple[Chain, ...]:
        """All that has to run."""
        manager = (self.manager.registry, self.manager.onward, self.manager.server)
        forwarder = (self.forwarder.registry, self.forwarder.onward, self.forwarder.server)
        return (*manager, *forwarder, self.endpoint, self.client)

    async def register(self) -> None:
        """Register forwarder and endpoint, for a while."""
        forwarder = _entry(f"fwd{self.number}", "forwarder", p2p="true")
        for entry in (forwarder, _entry(f"nse{self.number}", SERVED)):
            await self.manager.registry.register(Call(), entry)

    async def ask(self, number: int) -> None:
        """Have the client of this node connected."""
        made = Connection(id=f"c-{number}", network_service=SERVED)
        preference = Kernel(inode_url=f"file:///run/netns/app{number}", name="nsm-1").offer(made)
        request = NetworkServiceRequest(connection=made, mechanism_preferences=[preference])
        await self.client.request(Call().within(DEADLINE), request)

    async def close(self, number: int) -> None:
        """Close what :meth:`ask` made."""
        await self.client.close(Call().within(DEADLINE), Connection(id=f"c-{number}"))


@dataclass(frozen=True, slots=True)
class Said:
    """What a step took, seconds in all, and what the process holds after it; ``pss`` in bytes."""

    wall: float
    cpu: float
    pss: int
    objects: int
    tunnels: int
    interfaces: int

    def held(self) -> tuple[str, str]:
        """Return memory and live objects, for a table."""
        return f"{self.pss / 1e6:.0f} MB", str(self.objects)


def _entry(name: str, service: str, **labels: str) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(
        name=name,
        network_service_names=[service],
        network_service_labels={service: NetworkServiceLabels(labels=labels)},
        url=f"unix:///{name}",
    )


@asynccontextmanager
async def domain(count: int) -> AsyncIterator[list[Node]]:
    """Run that many nodes with one registry."""
    registry = Registry(MemoryStore(SERVICE), MemoryStore(ENDPOINT))
    peers = Neighbours()
    nodes = [Node(number, registry, peers) for number in range(1, count + 1)]
    async with AsyncExitStack() as stack:
        for node in nodes:
            for one in node.chains:
                await stack.enter_async_context(one.running())
        await nodes[0].manager.registry.register(Call(), NetworkService(name=SERVED, payload="IP"))
        yield nodes


async def obey() -> None:
    """Be told by lines of JSON, ``[verb, first, last]``; answer each with what it took and what is held."""
    async with domain(NODES) as nodes:
        for line in sys.stdin:
            verb, first, last = json.loads(line)
            await _register(nodes)
            numbers = iter(range(first, last))
            cpu, began = time.process_time(), time.perf_counter()
            await asyncio.gather(*(_some(nodes, verb, numbers) for _ in range(IN_FLIGHT)))
            wall, cpu = time.perf_counter() - began, time.process_time() - cpu
            gc.collect()
            said = Said(
                wall,
                cpu,
                memory_of(os.getpid()).pss,
                len(gc.get_objects()),
                sum(len(node.datapath.kernel.tunnels) for node in nodes),
                sum(len(node.datapath.kernel.interfaces) for node in nodes),
            )
            print(json.dumps(asdict(said)), flush=True)


async def _register(nodes: list[Node]) -> None:
    for node in nodes:
        await node.register()


async def _some(nodes: list[Node], verb: str, numbers: Iterator[int]) -> None:
    for number in numbers:
        node = nodes[number % NODES]
        await (node.ask(number) if verb == "ask" else node.close(number))


class Domain:
    """A process with a whole domain in it, whose memory nothing else has used."""

    def __init__(self, folder: Path, name: str) -> None:
        argv = [sys.executable, str(Path(__file__).resolve())]
        self.process = Process(name, argv, folder / f"{name}.log", talk=True)

    def do(self, verb: str, first: int, last: int) -> Said:
        """Ask for, or close, the connections ``first`` to ``last - 1``."""
        stdin, stdout = self.process.popen.stdin, self.process.popen.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps([verb, first, last]).encode() + b"\n")
            stdin.flush()
        line = stdout.readline()
        if not line:
            raise SystemExit(f"domain: {self.process.name} failed\n{self.process.tail()}")
        return Said(**json.loads(line))


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Fill one domain, a step at a time; another that is empty again after each step tells of the machine."""
    count, step, part = (200, 100, 40) if short else (10_000, 1000, 250)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        full, empty = Domain(folder, "full"), Domain(folder, "empty")
        for one in (full, empty):
            stack.callback(one.process.stop)
            for verb in ("ask", "close"):  # what is imported or opened at first use is not what is measured
                before = one.do(verb, 0, part)
        steps, beside = [], []
        for first in range(0, count, step):
            quiet = empty.do("ask", 0, part)
            empty.do("close", 0, part)
            steps.append(full.do("ask", first, first + step))
            after = empty.do("ask", 0, part)
            empty.do("close", 0, part)
            beside.append((quiet.cpu + after.cpu) / 2 / part)
        closed = full.do("close", 0, count)
    if closed.interfaces:
        raise SystemExit(f"domain: {closed.interfaces} interfaces are left")
    return _report(before, steps, beside, closed, step)


def _report(before: Said, steps: list[Said], beside: list[float], closed: Said, step: int) -> Report:
    count = step * len(steps)
    rows = [("none", "", "", "", "", *before.held())]
    for number, (last, one) in enumerate(zip([before, *steps], steps, strict=False)):
        ratio = f"{one.cpu / step / beside[number]:.2f}"
        grown = size((one.pss - last.pss) / step)
        held = str((number + 1) * step)
        rows.append((held, duration(one.wall / step), duration(one.cpu / step), ratio, grown, *one.held()))
    rows.append(
        ("closed", duration(closed.wall / count), duration(closed.cpu / count), "", "", *closed.held())
    )
    head = ("held", "wall of each", "CPU of each", "ratio", "PSS of each", "PSS", "objects")
    title = (
        f"{count} connections over {NODES} nodes, {steps[-1].tunnels} ends of tunnels, {IN_FLIGHT} in flight"
    )
    report = Report(details=[Details(title, head, rows)])
    report.rows.append(row("an empty domain", f"{NODES} nodes", [], beside, beside, to="itself"))
    for what, at in (("first", 0), ("last", -1)):
        one = steps[at]
        name = f"the {what} {step} of {count}"
        wall, cpu = [one.wall / step], [one.cpu / step]
        report.rows.append(row(name, f"{NODES} nodes", wall, cpu, [beside[at]], to="an empty domain"))
    return report


if __name__ == "__main__":
    logging.configure(role="bench", level="ERROR")
    garbage.settle()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(obey())
