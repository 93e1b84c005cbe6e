"""One gRPC call, 984 bytes there and back, by engine and transport; client and server each one process.

Run: python bench/run.py rpc. Engines and transports take turns, round after round. Per second and CPU time
(of both sides) are those of calls with 64 in flight; the times are those of one call at a time.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from report import Report, row

from nsmesh import rpc
from nsmesh.core.identity import Identity
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import SvidSource

PATH = "/bench.Echo/Echo"
MESSAGE = bytes(984)
AT_ONCE = 64
DIALS = 20
NAME = "rpc"


async def echo(_: rpc.ServerCall, message: bytes) -> bytes:
    return message


def server(url: str, engine: str, identity: Identity | None, talk: Connection) -> None:
    """Serve until told to stop; then say how much processor time it took."""

    async def main() -> None:
        async with rpc.serve(url, {PATH: rpc.Unary(echo)}, engine=engine, identity=identity) as running:
            talk.send(running.url)
            while await asyncio.to_thread(talk.recv):
                talk.send(time.process_time())

    asyncio.run(main())


@dataclass(slots=True)
class Found:
    """What one way took: seconds for each call and dial; for each round CPU per call and calls per second."""

    single: list[float] = field(default_factory=list)
    dials: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)


async def measure(found: Found, url: str, way: Way, calls: int, talk: Connection) -> None:
    """Add one round."""
    client = await rpc.connect(url, engine=way.engine, identity=way.identities[1])
    for _ in range(calls):
        began = time.perf_counter()
        await client.unary(PATH, MESSAGE)
        found.single.append(time.perf_counter() - began)

    async def some() -> None:
        for _ in range(calls // AT_ONCE):
            await client.unary(PATH, MESSAGE)

    talk.send(True)  # noqa: FBT003 - any message but False asks for the time
    theirs, mine, began = talk.recv(), time.process_time(), time.perf_counter()
    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    wall, cpu = time.perf_counter() - began, time.process_time() - mine
    talk.send(True)  # noqa: FBT003 - the same
    done = calls // AT_ONCE * AT_ONCE
    found.cpu.append((cpu + talk.recv() - theirs) / done)
    found.rate.append(done / wall)
    await client.aclose()
    for _ in range(DIALS):
        began = time.perf_counter()
        client = await rpc.connect(url, engine=way.engine, identity=way.identities[1])
        await client.unary(PATH, MESSAGE)
        found.dials.append(time.perf_counter() - began)
        await client.aclose()


@dataclass(frozen=True, slots=True)
class Way:
    """An engine over a transport. ``identities``: of server and client; None without TLS."""

    engine: str
    transport: str
    identities: tuple[Identity | None, Identity | None]

    @property
    def name(self) -> str:
        """What the table says."""
        return f"{self.engine}, {self.transport}"


def once(way: Way, found: Found, calls: int) -> None:
    """Measure one way for one round, with a server process of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        url = "tcp://127.0.0.1:0" if way.transport.startswith("tcp") else f"unix://{folder}/s.sock"
        here, there = get_context("fork").Pipe()
        process = get_context("fork").Process(
            target=server, args=(url, way.engine, way.identities[0], there), daemon=True
        )
        process.start()
        try:
            asyncio.run(measure(found, here.recv(), way, calls, here))
        finally:
            here.send(False)  # noqa: FBT003 - the word to stop
            process.join()


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure every engine over every transport; the first one is what the others are compared with."""
    rounds, calls = (1, 128) if short else (4, 1024)
    with tempfile.TemporaryDirectory(prefix="bench-") as keys:
        authority = CertificateAuthority.open(Path(keys) / "ca", "bench.mesh")
        svids = [authority.issue(f"spiffe://bench.mesh/{role}") for role in ("server", "client")]
        server_side, client_side = (SvidSource(svid, [authority.bundle()]) for svid in svids)
        ways = [
            Way(engine, transport, (server_side, client_side) if "TLS" in transport else (None, None))
            for engine in ("ng", "h2")
            for transport in ("unix", "unix mTLS", "tcp mTLS")
        ]
        found = {way.name: Found() for way in ways}
        for number in range(rounds):
            for way in ways if number % 2 else reversed(ways):
                once(way, found[way.name], calls)
    base = found[ways[0].name]
    report = Report()
    for name, one in found.items():
        rate = statistics.median(one.rate)
        report.rows.append(
            row("gRPC call", name, one.single, one.cpu, base.cpu, to=ways[0].name, per_second=rate)
        )
        report.rows.append(row("dial and call", name, one.dials))
    return report
