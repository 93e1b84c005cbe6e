"""The registry as a whole, in memory and in a file; and with a manager's half and a registrant in front."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from nsmesh.chains.registry import memory_registry, running_registry, sqlite_registry
from nsmesh.chains.runtime import runtime
from nsmesh.chains.settings import RegistrySettings
from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Chain, Handler, chain
from nsmesh.core.errors import Invalid, Unavailable, Unimplemented
from nsmesh.core.peering import Dialled
from nsmesh.core.probes import Count
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.elements.dial import Dial
from nsmesh.elements.expire import Expire
from nsmesh.elements.local_bypass import LocalBypass
from nsmesh.elements.mirror import Mirror
from nsmesh.elements.register_heal import RegisterHeal
from nsmesh.elements.register_refresh import RegisterRefresh
from nsmesh.elements.register_retry import RegisterRetry
from nsmesh.model.messages import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceQuery,
    NetworkServiceRequest,
)
from nsmesh.model.times import seconds
from nsmesh.registry.query import content_of
from nsmesh.registry.sqlite import RegistryFile

OWN = "tcp://10.0.0.1:5001"


@pytest.fixture(params=["memory", "sqlite"])
def registry(request, tmp_path) -> Iterator[Chain]:
    if request.param == "memory":
        yield memory_registry(clock=VirtualClock())
    else:
        with RegistryFile(tmp_path / "registry.db") as file:
            yield sqlite_registry(file, clock=VirtualClock())


def ep(name: str, *services: str, url: str = "tcp://h:1") -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(name=name, network_service_names=services, url=url)


async def names(handler: Handler, query) -> list[str]:
    async with asyncio.timeout(10):
        return sorted([content_of(item).name async for item in handler.find(Call(), query)])


def test_a_registry_answers_as_go_does(registry):
    """Payload filled in, times set and kept, found by template, gone on Unregister by name alone."""

    async def main():
        async with registry.running():
            service = await registry.register(Call().within(15), NetworkService(name="s"))
            assert service.payload == "IP"
            first = await registry.register(Call().within(15), ep("e", "s"))
            assert seconds(first.expiration_time) == pytest.approx(EPOCH + 60)
            assert seconds(first.initial_registration_time) == pytest.approx(EPOCH)
            await asyncio.sleep(1.1)
            same = await registry.register(Call().within(15), first)
            assert same.expiration_time == first.expiration_time
            later = await registry.register(Call().within(15), ep("e", "s", url="tcp://h:2"))
            assert seconds(later.expiration_time) == pytest.approx(EPOCH + 61.1)
            assert later.initial_registration_time == first.initial_registration_time
            by_service = NetworkServiceEndpointQuery(network_service_endpoint=ep("", "s", url=""))
            assert await names(registry, by_service) == ["e"]
            assert await names(registry, NetworkServiceQuery()) == ["s"]
            await registry.unregister(Call().within(15), NetworkServiceEndpoint(name="e"))
            assert await names(registry, NetworkServiceEndpointQuery()) == []
            with pytest.raises(Invalid):
                await registry.register(Call(), NetworkService())
            with pytest.raises(Unimplemented):
                await registry.request(Call(), NetworkServiceRequest())

    run(main())


def test_a_watch_tells_of_expiry(registry):
    """An endpoint that does not come back is deleted 45 s after a Register with 15 s, body and all."""

    async def main():
        async with (
            registry.running(),
            aclosing(registry.find(Call(), NetworkServiceEndpointQuery(watch=True))) as found,
        ):
            await registry.register(Call().within(15), ep("e", "s"))
            assert not (await anext(found)).deleted
            item = await anext(found)
            assert item.deleted
            assert item.network_service_endpoint.url == "tcp://h:1"
            assert asyncio.get_running_loop().time() == pytest.approx(45.0, abs=0.1)

    run(main())


def test_front_elements_see_both_kinds():
    """What stands in front (path header, policies) is passed by every verb of either kind."""

    async def main():
        count = Count()
        registry = memory_registry(front=[count], clock=VirtualClock())
        async with registry.running():
            await registry.register(Call(), NetworkService(name="s"))
            await registry.register(Call(), ep("e"))
            await names(registry, NetworkServiceQuery())
            await registry.unregister(Call(), ep("e"))
        assert count.seen == {"register": 2, "find": 1, "unregister": 1}

    run(main())


def test_a_restart_from_the_file_loses_nothing_and_expires_on_time(tmp_path):
    """Services stay for ever, endpoints until their time, and their first registration time stays too."""
    path = tmp_path / "registry.db"

    async def main():
        with RegistryFile(path) as file:
            registry = sqlite_registry(file, clock=VirtualClock())
            async with registry.running():
                await registry.register(Call(), NetworkService(name="s", payload="ETHERNET"))
                first = await registry.register(Call().within(15), ep("e", "s"))
                await registry.register(Call(), ep("stays", "s"))
        await asyncio.sleep(50)
        with RegistryFile(path) as file:
            registry = sqlite_registry(file, clock=VirtualClock())
            async with registry.running():
                assert await names(registry, NetworkServiceQuery()) == ["s"]
                assert await names(registry, NetworkServiceEndpointQuery()) == ["e", "stays"]
                again = await registry.register(Call(), ep("stays", "s"))
                assert again.initial_registration_time == first.initial_registration_time
                await asyncio.sleep(10.1)
                assert await names(registry, NetworkServiceEndpointQuery()) == ["stays"]
                await asyncio.sleep(50)
                assert await names(registry, NetworkServiceEndpointQuery()) == []
                assert await names(registry, NetworkServiceQuery()) == ["s"]

    run(main())


class Node:
    """A manager's view of ``registry``, and an endpoint that registers through it."""

    def __init__(self, registry: Handler):
        clock = VirtualClock()
        self.count = Count()
        self.mirror = Mirror()
        self.manager = chain(
            Begin(),
            Expire(),
            LocalBypass(OWN),
            self.mirror,
            self.count,
            end=registry,
            clock=clock,
            name="nsmgr registry",
        )
        self.endpoint = chain(
            Begin(),
            RegisterRetry(),
            RegisterHeal(),
            RegisterRefresh(),
            end=self.manager,
            clock=clock,
            name="registration",
        )


def test_an_endpoint_stays_registered_through_a_manager(registry):
    """For an hour the endpoint is found with its own URL by its node and with the manager's by others.

    The manager asks the registry only until its copies are there; when the endpoint's process dies, the entry
    goes away within its time.
    """

    async def main():
        node = Node(registry)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(registry.running())
            await stack.enter_async_context(node.manager.running())
            registrant = await stack.enter_async_context(AsyncExitStack())
            await registrant.enter_async_context(node.endpoint.running())
            await node.endpoint.register(Call(), NetworkService(name="s"))
            answer = await node.endpoint.register(Call(), ep("e", "s", url="unix:///e.sock"))
            assert answer.url == "unix:///e.sock"
            query = NetworkServiceEndpointQuery(network_service_endpoint=ep("", "s", url=OWN))
            for minute in range(60):
                (found,) = [item async for item in node.manager.find(Call(), query)]
                assert found.network_service_endpoint.url == "unix:///e.sock"
                (found,) = [item async for item in registry.find(Call(), query)]
                assert found.network_service_endpoint.url == OWN
                assert await names(node.manager, NetworkServiceQuery()) == ["s"]
                await asyncio.sleep(60)
                if minute == 1:
                    node.count.seen.clear()
            assert node.count.seen["find"] == 0
            assert node.count.seen["register"] == pytest.approx(58 * 60 / 40, abs=2)
            await registrant.aclose()
            await asyncio.sleep(61)
            assert await names(registry, NetworkServiceEndpointQuery()) == []
            assert await names(node.manager, NetworkServiceEndpointQuery()) == []

    run(main())


def test_a_registry_that_forgot_learns_again_within_moments():
    """The registry restarts empty: the watches break, the endpoint registers again through the manager."""

    class Swap:
        """A registry behind a name; the streams of a stopped one break."""

        def __init__(self):
            self.registry = memory_registry(clock=VirtualClock())

        def __getattr__(self, verb):
            return getattr(self.registry, verb)

    async def main():
        swap = Swap()
        node = Node(swap)
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(AsyncExitStack())
            await first.enter_async_context(swap.registry.running())
            await stack.enter_async_context(node.manager.running())
            await stack.enter_async_context(node.endpoint.running())
            await node.endpoint.register(Call(), NetworkService(name="s"))
            await node.endpoint.register(Call(), ep("e", "s", url="unix:///e.sock"))
            await names(node.manager, NetworkServiceQuery())
            await asyncio.sleep(10)
            old = swap.registry
            swap.registry = memory_registry(clock=VirtualClock())
            await stack.enter_async_context(swap.registry.running())
            await first.aclose()
            of_endpoints = old.elements[0].endpoints.elements
            end = next(element for element in of_endpoints if isinstance(element, Expire))._origin
            for store in (end.services, end.endpoints):
                for watch in [watch for group in store._catalogue._watchers.values() for watch in group]:
                    watch.close()
            await asyncio.sleep(1)
            assert await names(swap, NetworkServiceQuery()) == ["s"]
            assert await names(swap, NetworkServiceEndpointQuery()) == ["e"]
            assert await names(node.manager, NetworkServiceEndpointQuery()) == ["e"]

    run(main())


@pytest.mark.parametrize("sqlite", [False, True])
def test_a_served_registry_answers_over_its_socket(tmp_path: Path, sqlite: bool):
    """The role as a daemon runs it: registered and found over a unix socket, in memory or in a file."""

    async def main():
        url = f"unix://{tmp_path}/registry.sock"
        config = RegistrySettings(listen_on=(url,), database=str(tmp_path / "registry.db"))
        async with (
            runtime(lifetime=60, dial_timeout=1.0, share=False) as held,
            running_registry(config, held, sqlite=sqlite),
        ):
            peer = await held.peers.get(url)
            await peer.register(Call().within(5), NetworkService(name="s"))
            await peer.register(Call().within(5), ep("e", "s"))
            assert await names(peer, NetworkServiceEndpointQuery()) == ["e"]
            async with aclosing(peer.find(Call(), NetworkServiceQuery(watch=True))) as found:
                assert content_of(await anext(found)).name == "s"
                await peer.unregister(Call().within(5), NetworkService(name="s"))
                assert (await anext(found)).deleted
        assert (tmp_path / "registry.db").exists() is sqlite

    asyncio.run(main())


def test_a_mirror_over_a_socket_follows_and_notices_the_end(tmp_path: Path):
    """The manager's copy is filled over the wire, and thrown away when the registry stops."""

    async def main():
        url = f"unix://{tmp_path}/registry.sock"
        config = RegistrySettings(listen_on=(url,))
        async with runtime(lifetime=60, dial_timeout=1.0, share=False) as held:
            mirror = Mirror()
            manager = chain(mirror, Dial(held.peers, target=url), end=Dialled())
            async with manager.running():
                async with asyncio.timeout(10), running_registry(config, held, sqlite=False):
                    await manager.register(Call(), ep("e", "s"))
                    while not mirror.endpoints.synchronised:
                        assert await names(manager, NetworkServiceEndpointQuery()) == ["e"]
                        await asyncio.sleep(0.01)
                    passed = mirror.endpoints.passed
                    for _ in range(10):
                        assert await names(manager, NetworkServiceEndpointQuery()) == ["e"]
                    assert mirror.endpoints.passed == passed
                async with asyncio.timeout(5):
                    while mirror.endpoints.synchronised:  # noqa: ASYNC110 - the end is what is awaited
                        await asyncio.sleep(0.01)
                with pytest.raises(Unavailable):
                    await names(manager, NetworkServiceEndpointQuery())

    asyncio.run(main())
