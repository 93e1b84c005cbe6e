"""The end of a registry's chain."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from nsmesh.core.call import Call
from nsmesh.core.errors import Invalid, Unimplemented
from nsmesh.core.virtual import run
from nsmesh.model.messages import (
    Connection,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceQuery,
    NetworkServiceRequest,
)
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE, content_of


def make() -> Registry:
    return Registry(MemoryStore(SERVICE), MemoryStore(ENDPOINT))


async def names(found) -> list[str]:
    return [content_of(item).name async for item in found]


def test_register_find_unregister():
    """Both kinds are stored apart, found by template, and gone when unregistered by name alone."""

    async def main():
        registry, call = make(), Call()
        await registry.register(call, NetworkService(name="s", payload="IP"))
        await registry.register(call, NetworkServiceEndpoint(name="s", network_service_names=["s"]))
        by_service = NetworkServiceEndpointQuery(
            network_service_endpoint=NetworkServiceEndpoint(network_service_names=["s"])
        )
        assert await names(registry.find(call, by_service)) == ["s"]
        await registry.unregister(call, NetworkServiceEndpoint(name="s"))
        await registry.unregister(call, NetworkServiceEndpoint(name="never"))
        assert await names(registry.find(call, by_service)) == []
        assert await names(registry.find(call, NetworkServiceQuery())) == ["s"]
        await registry.unregister(call, NetworkService(name="s"))
        assert await names(registry.find(call, NetworkServiceQuery())) == []

    run(main())


def test_a_query_without_a_body_means_everything():
    """Go's registry dies of one for services and answers nothing to one for endpoints; ours answers both."""

    async def main():
        registry, call = make(), Call()
        await registry.register(call, NetworkService(name="s"))
        await registry.register(call, NetworkServiceEndpoint(name="e"))
        assert await names(registry.find(call, NetworkServiceQuery())) == ["s"]
        assert await names(registry.find(call, NetworkServiceEndpointQuery())) == ["e"]

    run(main())


def test_what_comes_back_belongs_to_the_caller():
    """Changing an answer changes nothing that is stored."""

    async def main():
        registry, call = make(), Call()
        answer = await registry.register(call, NetworkServiceEndpoint(name="e", url="tcp://h:1"))
        answer.url = "changed"
        async for found in registry.find(call, NetworkServiceEndpointQuery()):
            assert found.network_service_endpoint.url == "tcp://h:1"
            found.network_service_endpoint.url = "changed"
        assert (await registry.endpoints.get("e")).url == "tcp://h:1"

    run(main())


def test_watch_goes_on_until_it_is_left():
    """A watch stays open, tells of deletes with the body, and leaves no watcher behind."""

    async def main():
        registry, call = make(), Call()
        query = NetworkServiceEndpointQuery(watch=True)
        async with aclosing(registry.find(call, query)) as found:
            await registry.register(call, NetworkServiceEndpoint(name="e", url="tcp://h:1"))
            first = await anext(found)
            assert (first.network_service_endpoint.name, first.deleted) == ("e", False)
            waiting = asyncio.ensure_future(anext(found))
            await asyncio.sleep(30)
            assert not waiting.done()
            await registry.unregister(call, NetworkServiceEndpoint(name="e"))
            last = await waiting
            assert (last.network_service_endpoint.url, last.deleted) == ("tcp://h:1", True)
            assert registry.endpoints.watchers == 1
        assert registry.endpoints.watchers == 0

    run(main())


@pytest.mark.parametrize("entry", [NetworkService(payload="IP"), NetworkServiceEndpoint(url="x")])
def test_an_entry_needs_a_name(entry):
    """Without a name there is nothing to store or to remove; the caller is told."""

    async def main():
        registry = make()
        with pytest.raises(Invalid, match="has no name - set its name"):
            await registry.register(Call(), entry)
        with pytest.raises(Invalid, match="has no name"):
            await registry.unregister(Call(), entry)

    run(main())


def test_a_registry_makes_no_connections():
    """Request, Close and MonitorConnections are not served."""

    async def main():
        registry = make()
        with pytest.raises(Unimplemented):
            await registry.request(Call(), NetworkServiceRequest())
        with pytest.raises(Unimplemented):
            await registry.close(Call(), Connection())
        with pytest.raises(Unimplemented):
            await anext(registry.monitor(Call(), MonitorScopeSelector()))

    run(main())
