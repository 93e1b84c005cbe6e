"""One network service of several endpoints, each with an identity of its own, at a real registry over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from nsmesh import rpc
from nsmesh.chains import shared_service
from nsmesh.chains.endpoint import registration
from nsmesh.chains.registry import running_registry
from nsmesh.chains.roles import registered
from nsmesh.chains.runtime import Runtime
from nsmesh.chains.secured import Secured
from nsmesh.chains.settings import RegistrySettings
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain
from nsmesh.elements.peer import LocalPeers, RemotePeers
from nsmesh.model.messages import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceQuery,
)
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import SvidSource

OURS = Call(peer=Peer(in_process=True))


class Mesh:
    """A registry, and whoever registers there."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.url = f"unix://{folder}/registry.sock"
        self.stack = stack
        self.ca = CertificateAuthority.open(folder / "ca", "my.nsm")

    def runtime(self, name: str) -> Runtime:
        source = SvidSource(self.ca.issue(f"spiffe://my.nsm/{name}"), [self.ca.bundle()])
        pool = rpc.Pool(identity=source)
        self.stack.push_async_callback(pool.aclose)
        secured = Secured(source)
        return Runtime(LocalPeers({}, RemotePeers(pool), share=False), secured.tokens, secured)

    async def provider(self, name: str, payload: str = "IP") -> Chain:
        """Register the service and an endpoint of it, in the background."""
        held = self.runtime(name)
        chain = registration(
            name,
            manager=self.url,
            peers=held.peers,
            tokens=held.tokens,
            by_manager=False,
            checks=held.registry_checks(),
        )
        await self.stack.enter_async_context(chain.running())
        entry = NetworkServiceEndpoint(name=name, network_service_names=["s"], url="tcp://127.0.0.1:1")
        entries = [NetworkService(name="s", payload=payload), entry]
        await self.stack.enter_async_context(registered(chain, entries))
        return chain


@asynccontextmanager
async def mesh(folder: Path) -> AsyncIterator[Mesh]:
    """Give a registry that enforces the policies of the field."""
    async with asyncio.timeout(30), AsyncExitStack() as stack:
        made = Mesh(folder, stack)
        held = made.runtime("registry")
        settings = RegistrySettings(listen_on=(made.url,))
        front = held.registry_front(settings.registry_server_policies)
        await stack.enter_async_context(running_registry(settings, held, sqlite=False, front=front))
        yield made


async def endpoints(chain: Chain) -> set[str]:
    query = NetworkServiceEndpointQuery(network_service_endpoint=NetworkServiceEndpoint())
    return {one.network_service_endpoint.name async for one in chain.find(OURS, query)}


async def owner(chain: Chain) -> list[str]:
    query = NetworkServiceQuery(network_service=NetworkService(name="s"))
    return [one.network_service.path_ids[0] async for one in chain.find(OURS, query)]


async def reached(chain: Chain, wanted: set[str]) -> None:
    while await endpoints(chain) != wanted:  # noqa: ASYNC110 - a registry
        await asyncio.sleep(0.02)


def test_another_identity_provides_the_same_service(tmp_path: Path) -> None:
    """The name stays with who came first, and both endpoints are registered."""

    async def main() -> None:
        async with mesh(tmp_path) as made:
            one = await made.provider("one")
            await reached(one, {"one"})
            await made.provider("two")
            await reached(one, {"one", "two"})
            assert await owner(one) == ["spiffe://my.nsm/one"]

    asyncio.run(main())


def test_a_service_of_another_payload_is_another_one(tmp_path: Path) -> None:
    """Who would provide it differently is refused, and its endpoint stays outside."""

    async def main() -> None:
        async with mesh(tmp_path) as made:
            one = await made.provider("one")
            await reached(one, {"one"})
            await made.provider("two", payload="ETHERNET")
            await asyncio.sleep(0.5)
            assert await endpoints(one) == {"one"}

    asyncio.run(main())


def test_a_service_that_is_gone_is_registered_by_who_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its owner unregisters it, another one of those who provide it owns it."""
    monkeypatch.setattr(shared_service, "LOOK", 0.05)

    async def main() -> None:
        async with mesh(tmp_path) as made:
            one = await made.provider("one")
            await reached(one, {"one"})
            two = await made.provider("two")
            await reached(one, {"one", "two"})
            await one.unregister(OURS, NetworkService(name="s"))
            while await owner(two) != ["spiffe://my.nsm/two"]:  # noqa: ASYNC110 - a registry
                await asyncio.sleep(0.02)

    asyncio.run(main())
