"""What the tester brings along: a forwarder and endpoints of its own, registered at the manager under test.

The service that a case registers says by its metadata that only this forwarder may serve it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from nsmesh.chains.endpoint import endpoint, registration
from nsmesh.chains.roles import registered, running_forwarder
from nsmesh.chains.runtime import Runtime, served
from nsmesh.chains.settings import ForwarderSettings
from nsmesh.conformance.actor import PATIENCE
from nsmesh.conformance.case import Deviation, Skipped
from nsmesh.conformance.world import World, runtime_for
from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError, NotFound
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements.ipam import Ipam
from nsmesh.mechanisms.noop import Noop
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    FORWARDER_SERVICE,
    Connection,
    Match,
    Metadata,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
    NetworkServiceRequest,
)
from nsmesh.model.settings import Seconds

LABEL = "conformance"


@dataclass(frozen=True, slots=True)
class Mechanisms:
    """What the tester's forwarder and endpoints serve."""

    forwarder: tuple[MechanismPlugin, ...]
    endpoint: tuple[MechanismPlugin, ...]


NO_INTERFACES = Mechanisms((Noop(),), (Noop(),))


class Seen(Element):
    """Notes what an endpoint is asked."""

    def __init__(self) -> None:
        self.requests: list[NetworkServiceRequest] = []
        self.closed: list[Connection] = []

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Note, pass on."""
        self.requests.append(copy_of(request))
        return await next.request(call, request)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Note, pass on."""
        self.closed.append(copy_of(connection))
        await next.close(call, connection)


@dataclass(slots=True)
class Provider:
    """Forwarder and endpoints, running. ``service`` has every endpoint; ``seen`` is by endpoint name."""

    world: World
    service: str
    forwarder: str
    seen: dict[str, Seen]
    services: tuple[str, ...] = ()

    def only_here(self) -> Metadata:
        """Return the metadata by which a match chooses our forwarder."""
        return Metadata(labels={LABEL: self.world.run})

    async def put(self, name: str, matches: Sequence[Match]) -> None:
        """Register a service."""
        nsmgr = await self.world.nsmgr()
        await nsmgr.register(NetworkService(name=name, payload="IP", matches=matches))

    async def ask(self, request: NetworkServiceRequest) -> Connection:
        """Send a first Request to the manager; again for a while, as news of what is registered take time."""
        nsmgr = await self.world.nsmgr()
        end = asyncio.get_running_loop().time() + PATIENCE
        while True:
            try:
                return await nsmgr.request(copy_of(request))
            except MeshError as error:
                if not _early(error) or asyncio.get_running_loop().time() > end:
                    raise
                await asyncio.sleep(0.1)


def _early(error: MeshError) -> bool:
    return isinstance(error, NotFound) or "no candidates" in str(error) or "not found" in str(error)


@asynccontextmanager
async def providing(
    world: World,
    endpoints: Mapping[str, Mapping[str, str]] | None = None,
    services: Mapping[str, Sequence[Match]] | None = None,
    mechanisms: Mechanisms = NO_INTERFACES,
) -> AsyncIterator[Provider]:
    """Run a forwarder and endpoints (name and labels) while the block runs; raises Skipped over tcp.

    ``services``: more services that all endpoints provide, by full name, and their matches.
    """
    nsmgr = world.addresses.nsmgr
    if not nsmgr.startswith("unix:"):
        raise Skipped("the manager has to be reached over a unix socket: its forwarders are local")
    wanted = endpoints or {"nse": {}}
    async with AsyncExitStack() as stack:
        held = runtime_for(world.tester.identity, stack)
        settings = ForwarderSettings(
            name=world.name("forwarder"),
            labels={"p2p": "true", LABEL: world.run},
            connect_to=nsmgr,
            listen_on=f"unix://{world.folder}/forwarder.sock",
            dial_timeout=Seconds(2),
        )
        provider = Provider(world, world.name("service"), settings.name, {})
        await stack.enter_async_context(
            running_forwarder(settings, held, FakeDatapath(), list(mechanisms.forwarder))
        )
        matches = {provider.service: [Match(metadata=provider.only_here())], **(services or {})}
        for service, rules in matches.items():
            await provider.put(service, rules)
        provider.services = tuple(matches)
        for number, (name, labels) in enumerate(wanted.items()):
            provider.seen[world.name(name)] = await _endpoint(
                provider, number, name, labels, held, stack, mechanisms
            )
        await _registered(world, settings.name)
        yield provider


async def _endpoint(
    provider: Provider,
    number: int,
    name: str,
    labels: Mapping[str, str],
    held: Runtime,
    stack: AsyncExitStack,
    mechanisms: Mechanisms,
) -> Seen:
    world, full, seen = provider.world, provider.world.name(name), Seen()
    chain = endpoint(
        full,
        Ipam([[f"10.{77 + number}.0.0/16"]]),
        seen,
        mechanisms=mechanisms.endpoint,
        tokens=held.tokens,
        policies=held.policies(),
    )
    await stack.enter_async_context(chain.running())
    url = f"unix://{world.folder}/{name}.sock"
    await stack.enter_async_context(served(held, (url,), chain))
    register = registration(
        full,
        manager=world.addresses.nsmgr,
        peers=held.peers,
        tokens=held.tokens,
        checks=held.registry_checks(),
    )
    await stack.enter_async_context(register.running())
    entry = NetworkServiceEndpoint(
        name=full,
        network_service_names=provider.services,
        network_service_labels=dict.fromkeys(provider.services, NetworkServiceLabels(labels=labels)),
        url=url,
    )
    done = asyncio.Event()
    await stack.enter_async_context(registered(register, [entry], done=done.set))
    try:
        async with asyncio.timeout(PATIENCE):
            await done.wait()
    except TimeoutError:
        raise Deviation(f"endpoint {full} could not register in {PATIENCE:g} s") from None
    return seen


async def _registered(world: World, name: str) -> None:
    """Wait until the forwarder is registered."""
    nsmgr = await world.nsmgr()
    template = NetworkServiceEndpoint(name=name, network_service_names=[FORWARDER_SERVICE])
    end = asyncio.get_running_loop().time() + PATIENCE
    while name not in await nsmgr.names(template):
        if asyncio.get_running_loop().time() > end:
            raise Deviation(f"forwarder {name} could not register in {PATIENCE:g} s")
        await asyncio.sleep(0.05)
