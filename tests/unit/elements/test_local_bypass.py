"""LocalBypass: contract 4.3."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import aclosing

import pytest

from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Unavailable
from nsmesh.core.probes import Count, Inject
from nsmesh.core.streams import Chosen
from nsmesh.core.virtual import run
from nsmesh.elements.local_bypass import AGAIN, LocalBypass
from nsmesh.journal.memory import MemoryJournal
from nsmesh.model.messages import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceQuery,
)
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE, content_of
from nsmesh.rpc.address import parse
from nsmesh.rpc.files import HELD
from nsmesh.rpc.listening import listen

OWN = "tcp://10.77.0.1:5001"
REAL = "unix:///run/nse.sock"


class World:
    def __init__(self, *behind):
        self.registry = Registry(MemoryStore(SERVICE), MemoryStore(ENDPOINT))
        self.count = Count()
        self.bypass = LocalBypass(OWN)
        self.chain = chain(self.bypass, self.count, *behind, end=self.registry)

    async def find(self, **template) -> dict[str, str]:
        query = NetworkServiceEndpointQuery(network_service_endpoint=NetworkServiceEndpoint(**template))
        found = self.chain.find(Call(), query)
        return {item.network_service_endpoint.name: item.network_service_endpoint.url async for item in found}

    async def stored(self, name: str) -> NetworkServiceEndpoint | None:
        return await self.registry.endpoints.get(name)


def ep(name: str, url: str = REAL) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(name=name, network_service_names=["s"], url=url)


def dial(url):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(url.removeprefix("unix://"))
        return sock.family


def test_the_registry_sees_the_manager_and_the_node_sees_the_endpoint():
    """Register stores the manager's URL, answers with the real one; so does Find."""

    async def main():
        world = World()
        answer = await world.chain.register(Call(), ep("e"))
        assert answer.url == REAL
        assert (await world.stored("e")).url == OWN
        assert await world.find(name="e") == {"e": REAL}
        assert await world.find(network_service_names=["s"], url=OWN) == {"e": REAL}
        await world.chain.register(Call(), ep("e", "unix:///run/other.sock"))
        assert await world.find() == {"e": "unix:///run/other.sock"}

    run(main())


def test_entries_of_a_former_life_are_hidden():
    """An entry with our URL that we do not know is left out; those of others are told as they are."""

    async def main():
        world = World()
        await world.registry.register(Call(), ep("old", OWN))
        await world.registry.register(Call(), ep("far", "tcp://10.77.0.2:5001"))
        assert await world.find() == {"far": "tcp://10.77.0.2:5001"}
        await world.chain.register(Call(), ep("old"))
        assert await world.find() == {"far": "tcp://10.77.0.2:5001", "old": REAL}

    run(main())


def test_an_endpoint_that_moved_is_told_where_it_is():
    """A name of ours that another manager has registered since is not led to the old socket."""

    async def main():
        world = World()
        await world.chain.register(Call(), ep("e"))
        await world.registry.register(Call(), ep("e", "tcp://10.77.0.2:5001"))
        assert await world.find() == {"e": "tcp://10.77.0.2:5001"}

    run(main())


def test_a_watch_tells_real_urls_and_deletes():
    """The watch may tell of an endpoint before its Register returns; deletes pass, also of unknown names."""

    async def main():
        world = World()
        query = NetworkServiceEndpointQuery(watch=True)
        async with aclosing(world.chain.find(Call(), query)) as found:
            await world.registry.register(Call(), ep("old", OWN))
            await world.chain.register(Call(), ep("e"))
            async with asyncio.timeout(1):
                item = await anext(found)
                assert (content_of(item).name, content_of(item).url) == ("e", REAL)
                await world.chain.unregister(Call(), ep("e"))
                await world.registry.unregister(Call(), ep("old", OWN))
                items = [await anext(found), await anext(found)]
        assert [(content_of(item).name, item.deleted) for item in items] == [("e", True), ("old", True)]

    run(main())


def test_unregister_of_an_unknown_name_stays_here():
    """It is answered OK and does not reach the registry; a known one goes on with the manager's URL."""

    async def main():
        world = World()
        await world.registry.register(Call(), ep("far", "tcp://10.77.0.2:5001"))
        await world.chain.unregister(Call(), ep("far"))
        assert world.count.seen["unregister"] == 0
        assert await world.stored("far") is not None
        await world.chain.register(Call(), ep("e"))
        await world.chain.unregister(Call(), ep("e"))
        assert await world.stored("e") is None
        assert len(world.bypass) == 0

    run(main())


def test_a_first_register_that_failed_is_forgotten():
    """Nothing stays of it; a failed refresh keeps the URL that is registered."""

    async def main():
        failing = Inject(lambda: Unavailable("away"), "register", times=1)
        world = World(failing)
        with pytest.raises(Unavailable):
            await world.chain.register(Call(), ep("e"))
        assert len(world.bypass) == 0
        await world.chain.register(Call(), ep("e"))
        failing.times = 1
        with pytest.raises(Unavailable):
            await world.chain.register(Call(), ep("e", "unix:///run/new.sock"))
        assert await world.find() == {"e": REAL}

    run(main())


def test_an_unregister_that_failed_can_be_tried_again():
    """The name stays known until the registry has let go of it."""

    async def main():
        world = World(Inject(lambda: Unavailable("away"), "unregister", times=1))
        await world.chain.register(Call(), ep("e"))
        with pytest.raises(Unavailable):
            await world.chain.unregister(Call(), ep("e"))
        await world.chain.unregister(Call(), ep("e"))
        assert await world.stored("e") is None

    run(main())


def test_services_pass():
    """Nothing of a service is changed."""

    async def main():
        world = World()
        await world.chain.register(Call(), NetworkService(name="s"))
        assert [content_of(i).name async for i in world.chain.find(Call(), NetworkServiceQuery())] == ["s"]
        await world.chain.unregister(Call(), NetworkService(name="s"))
        assert len(world.registry.services) == 0

    run(main())


def test_a_manager_that_starts_again_knows_where_its_endpoints_are(tmp_path):
    """From its journal, at once, also who passed its socket; not where it is gone, nor who stays away."""
    url = f"unix://{tmp_path}/nse.sock"
    listening = listen(parse(url), 0o600)
    gone = listen(parse(f"unix://{tmp_path}/gone.sock"), 0o600)
    handles = {name: os.open(tmp_path / f"{name}.sock", os.O_PATH) for name in ("nse", "gone")}
    held = len(HELD)
    passed = {name: f"unix:///proc/{os.getpid()}/fd/{handle}" for name, handle in handles.items()}

    async def first(world):
        await world.chain.register(Call(), ep("stays"))
        await world.chain.register(Call(), ep("leaves"))
        await world.chain.unregister(Call(), ep("leaves"))
        await world.chain.register(Call(), ep("dies"))
        await world.chain.register(Call(), ep("passed", passed["nse"]))
        await world.chain.register(Call(), ep("gone", passed["gone"]))

    async def second(world):
        there = await world.find()
        again = there.pop("passed")
        assert there == {"stays": REAL, "dies": REAL}
        assert dial(again) == socket.AF_UNIX
        assert again != passed["nse"]
        assert len(HELD) == held + 1
        await world.chain.register(Call(), ep("stays"))
        await asyncio.sleep(AGAIN + 1)
        assert await world.find() == {"stays": REAL}
        assert len(HELD) == held

    async def third(world):
        assert await world.find() == {"stays": REAL}

    async def main():
        kept = {}
        registry = None
        for work in (first, second, third):
            world = World()
            world.registry = registry = registry or world.registry
            world.bypass = LocalBypass(OWN, MemoryJournal(kept))
            world.chain = chain(world.bypass, world.count, end=registry)
            async with world.chain.running():
                await work(world)
                await asyncio.sleep(0)
            (tmp_path / "gone.sock").unlink(missing_ok=True)

    try:
        run(main())
    finally:
        listening.close()
        gone.close()
        for handle in handles.values():
            os.close(handle)


class Proxy(Element):
    """Stands before the registry of another domain and tells its own URL in place of each."""

    def __init__(self, url="tcp://203.0.113.1:5004"):
        self.url = url
        self.silent = False

    def find(self, call, query, next):
        if self.silent:
            raise Unavailable("told to")
        return Chosen(next.find(call, query), self._told)

    def _told(self, item):
        item.network_service_endpoint.url = self.url
        return True


ABROAD = {"name": "e@far.test", "url": REAL, "network_service_names": ["s@far.test"]}


@pytest.mark.parametrize("silent", [False, True])
def test_an_endpoint_of_another_domain_is_found_here_though_a_proxy_is_told(silent):
    """Else its node would ask the proxy, that asks the node. By its name alone while nothing was learnt."""

    async def main():
        proxy = Proxy()
        world = World(proxy)
        proxy.silent = silent
        answer = await world.chain.register(Call(), NetworkServiceEndpoint(**ABROAD))
        proxy.silent = False
        assert answer.url == REAL
        assert await world.find(name="e@far.test") == {"e@far.test": REAL}

    run(main())


def test_an_endpoint_of_another_domain_that_moved_is_told_as_it_is():
    """The URL with which it is told is another than that after its registration here."""

    async def main():
        proxy = Proxy()
        world = World(proxy)
        await world.chain.register(Call(), NetworkServiceEndpoint(**ABROAD))
        proxy.url = "tcp://203.0.113.9:5004"
        assert await world.find(name="e@far.test") == {"e@far.test": proxy.url}
        await world.chain.register(Call(), NetworkServiceEndpoint(**ABROAD | {"url": REAL + "2"}))
        assert await world.find(name="e@far.test") == {"e@far.test": REAL + "2"}

    run(main())


def test_an_endpoint_of_this_domain_is_not_meant_by_the_url_of_another():
    """Without an @ it is what another manager has registered since."""

    async def main():
        proxy = Proxy()
        world = World(proxy)
        await world.chain.register(Call(), ep("e"))
        assert await world.find(name="e") == {"e": proxy.url}

    run(main())
