"""RegisterHeal, in virtual time, against a registry that loses things."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.core.probes import Count, Inject
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.elements.register_heal import RegisterHeal
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.model.times import timestamp
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE


class Restartable(Registry):
    """A registry that can end every watch and forget everything."""

    def __init__(self):
        super().__init__(MemoryStore(SERVICE), MemoryStore(ENDPOINT))

    @property
    def watches(self) -> int:
        return self.services.watchers + self.endpoints.watchers

    def cut(self, error: MeshError | None = None, *, forget: bool = True) -> None:
        """End all watches, as a connection does that closes; ``forget`` as a restart does."""
        old = self.services, self.endpoints
        if forget:
            self.services, self.endpoints = MemoryStore(SERVICE), MemoryStore(ENDPOINT)
        for store in old:
            for watch in [watch for group in store._catalogue._watchers.values() for watch in group]:
                watch.fail(error) if error else watch.close()

    async def there(self, name: str = "e") -> bool:
        return await self.endpoints.get(name) is not None


class World(AsyncExitStack):
    def __init__(self, *between: Element):
        super().__init__()
        self.end = Restartable()
        self.heal = RegisterHeal()
        self.count = Count()
        self.client = chain(self.heal, self.count, *between, end=self.end, clock=VirtualClock())

    async def __aenter__(self):
        await super().__aenter__()
        await self.enter_async_context(self.client.running())
        return self

    @property
    def registered(self) -> int:
        return self.count.seen["register"]


def ep(name: str = "e", **fields) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(name=name, url="unix:///run/e.sock", **fields)


@pytest.mark.parametrize("error", [None, Unavailable("connection lost")])
def test_any_end_of_the_watch_registers_again(error):
    """With or without an error, at once: the registry that forgot everything knows the entry again."""

    async def main():
        async with World() as world:
            await world.client.register(Call(), ep())
            await asyncio.sleep(10)
            assert world.end.watches == 1
            world.end.cut(error)
            await asyncio.sleep(0.01)
            assert await world.end.there()
            assert world.registered == 2
            await asyncio.sleep(10)
            assert world.registered == 2
            assert world.end.watches == 1

    run(main())


def test_a_quiet_watch_changes_nothing():
    """Hours pass and nothing is sent."""

    async def main():
        async with World() as world:
            await world.client.register(Call(), ep())
            await asyncio.sleep(10_000)
            assert world.registered == 1

    run(main())


def test_a_deleted_entry_is_registered_again():
    """Somebody else removed it; its owner is still there."""

    async def main():
        async with World() as world:
            await world.client.register(Call(), ep())
            await asyncio.sleep(10)
            await world.end.unregister(Call(), ep())
            await asyncio.sleep(0.01)
            assert await world.end.there()

    run(main())


def test_healing_is_repeated_until_it_works():
    """From 200 ms on, with growing pauses, while the registry is away."""

    async def main():
        failing = Inject(lambda: Unavailable("away"), "register", times=0)
        async with World(failing) as world:
            await world.client.register(Call(), ep())
            await asyncio.sleep(10)
            failing.times = 20
            world.end.cut()
            await asyncio.sleep(0.19)
            assert world.registered == 2
            await asyncio.sleep(0.07)
            assert world.registered == 3
            await asyncio.sleep(60)
            assert world.registered == 22
            assert await world.end.there()

    run(main())


def test_watches_that_end_at_once_make_no_hot_loop():
    """A registry without watches is asked a few times a second at first, every two seconds later."""

    class NoWatch(Element):
        async def find(self, call, query, next):
            return
            yield

    async def main():
        async with World(NoWatch()) as world:
            await world.client.register(Call(), ep())
            await asyncio.sleep(1)
            assert world.registered <= 5
            await asyncio.sleep(100)
            assert world.registered <= 60

    run(main())


def test_what_is_sent_keeps_the_first_time_and_our_url():
    """As a refresh does; a service is sent as it was answered."""

    class Answer(Element):
        sent: list = []  # noqa: RUF012 - one world

        async def register(self, call, entry, next):
            self.sent.append(entry)
            answer = await next.register(call, entry)
            if isinstance(answer, NetworkServiceEndpoint):
                answer.url = "tcp://manager"
                answer.initial_registration_time.CopyFrom(timestamp(EPOCH))
                answer.expiration_time.CopyFrom(timestamp(EPOCH + 60))
            else:
                answer.payload = "IP"
            return answer

    async def main():
        answer = Answer()
        async with World(answer) as world:
            await world.client.register(Call(), ep())
            await world.client.register(Call(), NetworkService(name="e"))
            await asyncio.sleep(10)
            world.end.cut()
            await asyncio.sleep(0.01)
            again = {type(entry): entry for entry in answer.sent[2:]}
            assert again[NetworkServiceEndpoint].url == "unix:///run/e.sock"
            assert again[NetworkServiceEndpoint].initial_registration_time == timestamp(EPOCH)
            assert not again[NetworkServiceEndpoint].HasField("expiration_time")
            assert again[NetworkService].payload == "IP"

    run(main())


def test_unregister_ends_the_watch():
    """Nothing is registered after it, and no watch is left, for either kind."""

    async def main():
        async with World() as world:
            await world.client.register(Call(), ep())
            await world.client.register(Call(), NetworkService(name="e"))
            await asyncio.sleep(1)
            assert world.end.watches == 2
            await world.client.unregister(Call(), ep())
            await world.client.unregister(Call(), NetworkService(name="e"))
            await asyncio.sleep(1)
            assert world.end.watches == 0
            await asyncio.sleep(100)
            assert not await world.end.there()
            assert world.registered == 2
            assert len(world.heal) == 0

    run(main())


def test_unregister_ends_a_healing_under_way():
    """While the registry is away the owner gives up: nothing is registered when it comes back."""

    async def main():
        failing = Inject(lambda: Unavailable("away"), "register", times=0)
        async with World(failing) as world:
            await world.client.register(Call(), ep())
            await asyncio.sleep(10)
            failing.times = 1000
            world.end.cut()
            await asyncio.sleep(3)
            await world.client.unregister(Call(), ep())
            failing.times = 0
            await asyncio.sleep(100)
            assert not await world.end.there()

    run(main())


def test_registering_again_keeps_one_watch():
    """A second Register of the same entry changes what is sent, not how many watch."""

    async def main():
        async with World() as world:
            await world.client.register(Call(), ep())
            await world.client.register(Call(), ep(network_service_names=["new"]))
            await asyncio.sleep(10)
            assert world.end.watches == 1
            world.end.cut()
            await asyncio.sleep(0.01)
            stored = await world.end.endpoints.get("e")
            assert list(stored.network_service_names) == ["new"]

    run(main())


def test_nothing_is_left_when_the_chain_ends():
    """Leaving the chain ends the watches; the entry stays as it is."""

    async def main():
        async with World() as world:
            await world.client.register(Call(), ep())
            await asyncio.sleep(1)
        assert world.end.watches == 0
        assert world.client.scope.tasks == 0

    run(main())
