"""One gRPC call, 984 bytes there and back, by engine and transport; client and server each one process.

Run: python bench/rpc_echo.py [CALLS]

Prints, per engine and transport: time of one call at a time (median, 99th percentile, microseconds), calls
per second and processor time of both sides per call at 64 in flight, and a new connection with its first
call (median, milliseconds).
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from nsmesh import rpc
from nsmesh.core.identity import Identity
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import SvidSource

PATH = "/bench.Echo/Echo"
MESSAGE = bytes(984)
AT_ONCE = 64


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


async def measure(url: str, engine: str, identity: Identity | None, calls: int, talk: Connection) -> str:
    """Return one line of figures."""
    client = await rpc.connect(url, engine=engine, identity=identity)
    single = []
    for _ in range(calls):
        began = time.perf_counter()
        await client.unary(PATH, MESSAGE)
        single.append((time.perf_counter() - began) * 1e6)

    async def some() -> None:
        for _ in range(calls // AT_ONCE):
            await client.unary(PATH, MESSAGE)

    talk.send(True)  # noqa: FBT003 - any message but False asks for the time
    theirs, mine, began = talk.recv(), time.process_time(), time.perf_counter()
    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    wall, cpu = time.perf_counter() - began, time.process_time() - mine
    talk.send(True)  # noqa: FBT003 - the same
    cpu += talk.recv() - theirs
    done = calls // AT_ONCE * AT_ONCE
    await client.aclose()
    dials = []
    for _ in range(50):
        began = time.perf_counter()
        client = await rpc.connect(url, engine=engine, identity=identity)
        await client.unary(PATH, MESSAGE)
        dials.append((time.perf_counter() - began) * 1e3)
        await client.aclose()
    cuts = statistics.quantiles(single, n=100)
    return (
        f"{cuts[49]:6.0f} {cuts[98]:6.0f} us   {done / wall:7.0f}/s {cpu / done * 1e6:5.0f} us CPU"
        f"   dial {statistics.median(dials):5.2f} ms"
    )


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    keys = tempfile.TemporaryDirectory()
    authority = CertificateAuthority.open(Path(keys.name) / "ca", "bench.mesh")
    for engine in ("ng", "h2"):
        for kind in ("unix", "unix tls", "tcp tls"):
            with tempfile.TemporaryDirectory() as folder:
                identities: list[SvidSource | None] = [None, None]
                if "tls" in kind:
                    svids = [authority.issue(f"spiffe://bench.mesh/{role}") for role in ("server", "client")]
                    identities = [SvidSource(svid, [authority.bundle()]) for svid in svids]
                url = "tcp://127.0.0.1:0" if kind.startswith("tcp") else f"unix://{folder}/s.sock"
                here, there = get_context("fork").Pipe()
                process = get_context("fork").Process(target=server, args=(url, engine, identities[0], there))
                process.start()
                line = asyncio.run(measure(here.recv(), engine, identities[1], calls, here))
                here.send(False)  # noqa: FBT003 - the word to stop
                process.join()
                print(f"{engine:3} {kind:9} {line}")
    keys.cleanup()
    print(f"{os.cpu_count()} processors, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
