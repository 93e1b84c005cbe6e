"""Who is tested, and by whom: peers at given addresses, or roles of our own in a scratch mesh."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nsmesh import rpc
from nsmesh.chains.registry import running_registry
from nsmesh.chains.roles import running_nsmgr
from nsmesh.chains.runtime import Runtime
from nsmesh.chains.secured import Secured
from nsmesh.chains.settings import NsmgrSettings, RegistrySettings
from nsmesh.chains.workload_client import fetched_identity
from nsmesh.conformance.actor import Actor, Peer, acting
from nsmesh.conformance.case import Skipped
from nsmesh.elements.peer import LocalPeers, RemotePeers
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.settings import Seconds
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import SvidSource

WAIT = 10.0
"""Seconds that a Workload API may take to tell us who we are."""
DOMAIN = "conformance.nsmesh"


@dataclass(frozen=True, slots=True)
class Addresses:
    """What is tested: URLs, empty for what is not there to be tested.

    ``spiffe``: the Workload API of the tester; ``other``: one that gives it a second SPIFFE ID.
    """

    nsmgr: str = ""
    registry: str = ""
    forwarder: str = ""
    endpoint: str = ""
    spiffe: str = ""
    other: str = ""


@dataclass(slots=True)
class World:
    """What a case may use. ``tester`` and ``other`` have different SPIFFE IDs; ``folder`` is for sockets."""

    addresses: Addresses
    tester: Actor
    folder: Path
    other: Actor | None = None
    scratch: bool = False
    """Whether the peers are our own, made for this run."""
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    """Stands in every name that this run registers, so that runs do not disturb each other."""

    def name(self, text: str) -> str:
        """Return a name of this run."""
        return f"conformance-{self.run}-{text}"

    async def nsmgr(self, actor: Actor | None = None) -> Peer:
        """Return the manager as the tester, or ``actor``, sees it."""
        return await self._peer("nsmgr", self.addresses.nsmgr, actor)

    async def registry(self, actor: Actor | None = None) -> Peer:
        """Return the registry as the tester, or ``actor``, sees it."""
        return await self._peer("registry", self.addresses.registry, actor)

    async def server(self, role: str) -> Peer:
        """Return the server of a role."""
        return await self._peer(role, getattr(self.addresses, role), None)

    async def _peer(self, role: str, url: str, actor: Actor | None) -> Peer:
        if not url:
            raise Skipped(f"no {role} given")
        return await (actor or self.tester).peer(url)

    def stranger(self) -> Actor:
        """Return the tester's second identity; raises Skipped where there is none."""
        if self.other is None:
            raise Skipped("no second identity given")
        return self.other

    def wanted(self, number: str, service: str, **more: object) -> NetworkServiceRequest:
        """Return the first Request of a client: one segment of its own, one offer, NOOP."""
        identity = self.name(number)
        request = NetworkServiceRequest()
        connection = request.connection
        connection.MergeFrom(Connection(id=identity, network_service=service, **more))  # type: ignore[arg-type]
        connection.context.ip_context.SetInParent()
        connection.path.path_segments.add(name=self.name("nsc"), id=identity)
        request.mechanism_preferences.add(cls="LOCAL", type="NOOP")
        return request


def runtime_for(identity: SvidSource, stack: AsyncExitStack) -> Runtime:
    """Return what a role of the tester's own needs to run with an identity, over real sockets."""
    secured = Secured(identity)
    pool = rpc.Pool(identity=identity, timeout=2.0)
    stack.push_async_callback(pool.aclose)
    return Runtime(
        peers=LocalPeers({}, RemotePeers(pool), share=False), tokens=secured.tokens, secured=secured
    )


@asynccontextmanager
async def world_of(addresses: Addresses) -> AsyncIterator[World]:
    """Prepare a run against peers at ``addresses``; with neither manager nor registry, against our own.

    Raises TimedOut where the Workload API does not say who the tester is.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nsm-")))
        if not addresses.nsmgr and not addresses.registry:
            yield await _scratch(folder, stack)
            return
        found = []
        for url in (addresses.spiffe, addresses.other):
            if url:
                source = await stack.enter_async_context(fetched_identity(url, wait=WAIT))
                found.append(await stack.enter_async_context(acting(source)))
        yield World(addresses, found[0], folder, found[1] if len(found) > 1 else None)


async def _scratch(folder: Path, stack: AsyncExitStack) -> World:
    """Run a registry and a manager of our own, with a CA that lasts as long."""
    authority = CertificateAuthority.open(folder / "ca", DOMAIN)

    def identity(name: str) -> SvidSource:
        return SvidSource(authority.issue(f"spiffe://{DOMAIN}/ns/{name}"), [authority.bundle()])

    addresses = Addresses(nsmgr=f"unix://{folder}/nsmgr.sock", registry=f"unix://{folder}/registry.sock")
    enter = stack.enter_async_context
    registry = RegistrySettings(listen_on=(addresses.registry,))
    held = runtime_for(identity("registry"), stack)
    await enter(running_registry(registry, held, sqlite=False, front=held.registry_front()))
    nsmgr = NsmgrSettings(
        name="nsmgr",
        listen_on=(addresses.nsmgr,),
        registry_url=addresses.registry,
        excluded_prefixes_file="",
        dial_timeout=Seconds(2),
    )
    await enter(running_nsmgr(nsmgr, runtime_for(identity("nsmgr"), stack)))
    tester = await enter(acting(identity("tester")))
    other = await enter(acting(identity("other")))
    return World(addresses, tester, folder, other, scratch=True)
