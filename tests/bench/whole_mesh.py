"""The mesh of the benchmarks in this process: all roles over TLS sockets, every policy, no kernel."""

import importlib.util
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from nsmesh import rpc
from nsmesh.chains.client import client
from nsmesh.chains.runtime import Runtime
from nsmesh.chains.secured import Secured
from nsmesh.elements.peer import LocalPeers, RemotePeers
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import SvidSource

NOWHERE = "/proc/1/ns/net"
"""A namespace that wires which are drawn in memory alone may be said to end in."""


def _bench_driver():
    """Return bench/driver.py, which is no part of the package."""
    path = Path(__file__).parents[2] / "bench" / "driver.py"
    spec = importlib.util.spec_from_file_location("bench_driver", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def driven(folder):
    """Run the mesh while the block runs; give what drives its client."""
    module = _bench_driver()
    authority = CertificateAuthority.open(folder / "ca", "bench.mesh")
    identity = SvidSource(authority.issue("spiffe://bench.mesh/all"), [authority.bundle()])
    secured = Secured(identity, lifetime=3600.0)
    pool = rpc.Pool(identity=identity, timeout=5.0)
    held = Runtime(LocalPeers({}, RemotePeers(pool), share=False), secured.tokens, secured)
    config = module.Config("whole", str(folder), (NOWHERE,), NOWHERE, kernel=False)
    chain = client(
        "client", manager=config.url("nsmgr"), peers=held.peers, tokens=held.tokens, checks=held.checks()
    )
    try:
        async with module.whole(config, held), chain.running():
            driver = module.Driver(chain, config, held)
            await driver.begin()
            yield driver
    finally:
        await pool.aclose()
