"""RegisterRefresh, in virtual time, against a registry that expires."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Unavailable
from nsmesh.core.probes import Check, Count, Inject
from nsmesh.core.virtual import EPOCH, SettableClock, VirtualClock, run
from nsmesh.elements.expire import Expire
from nsmesh.elements.register_refresh import RegisterRefresh
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.model.times import timestamp
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE


class World:
    """A registration client in front of a registry that expires after a minute."""

    def __init__(self, *between: Element, clock: VirtualClock | None = None):
        clock = clock or VirtualClock()
        self.store = MemoryStore(ENDPOINT)
        self.registry = chain(
            Begin(), Expire(), end=Registry(MemoryStore(SERVICE), self.store), clock=clock, name="registry"
        )
        self.refresh = RegisterRefresh()
        self.count = Count()
        self.sent: list[tuple[float, NetworkServiceEndpoint]] = []
        self.client = chain(
            self.refresh,
            self.count,
            Check("register", self._note),
            *between,
            end=self.registry,
            clock=clock,
            name="client",
        )

    def _note(self, call, entry) -> None:
        self.sent.append((asyncio.get_running_loop().time(), copy_of(entry)))

    async def __aenter__(self):
        self.running = [self.registry.running(), self.client.running()]
        for context in self.running:
            await context.__aenter__()
        return self

    async def __aexit__(self, *error):
        for context in reversed(self.running):
            await context.__aexit__(*error)

    async def there(self) -> bool:
        return await self.store.get("e") is not None


def ep(**fields) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(name="e", url="unix:///run/e.sock", **fields)


def test_it_registers_again_at_two_thirds():
    """Every 40 s of a minute's life; the endpoint never disappears."""

    async def main():
        async with World() as world:
            await world.client.register(Call(peer=Peer(in_process=True)), ep())
            for _ in range(100):
                await asyncio.sleep(10)
                assert await world.there()
            times = [when for when, _ in world.sent]
            assert times[:4] == pytest.approx([0.0, 40.0, 80.0, 120.0], abs=0.1)

    run(main())


def test_what_is_sent_again_has_no_expiration_time():
    """The last answer, so that the first registration time stays; our own URL; expiration unset."""

    class Foreign(Element):
        async def register(self, call, entry, next):
            answer = await next.register(call, entry)
            answer.url = "tcp://manager"
            answer.initial_registration_time.CopyFrom(timestamp(EPOCH - 7))
            answer.path_ids[:] = ["spiffe://a/e", "spiffe://a/registry"]
            return answer

    async def main():
        async with World(Foreign()) as world:
            await world.client.register(Call(), ep(expiration_time=timestamp(EPOCH + 30)))
            await asyncio.sleep(25)
            when, again = world.sent[1]
            assert when == pytest.approx(20.0, abs=0.1)
            assert not again.HasField("expiration_time")
            assert again.url == "unix:///run/e.sock"
            assert again.initial_registration_time == timestamp(EPOCH - 7)
            assert list(again.path_ids) == ["spiffe://a/e", "spiffe://a/registry"]

    run(main())


def test_a_refresh_that_fails_is_repeated():
    """From 200 ms on, until it works; then it goes on as before."""

    async def main():
        failing = Inject(lambda: Unavailable("away"), "register", times=0)
        async with World(failing) as world:
            await world.client.register(Call(), ep())
            failing.times = 5
            await asyncio.sleep(45)
            times = [when for when, _ in world.sent]
            assert len(times) == 7
            assert 0.2 <= times[2] - times[1] <= 0.25 + 1e-9
            assert await world.there()
            await asyncio.sleep(100)
            assert await world.there()
            assert len(world.refresh) == 1

    run(main())


def test_each_try_gets_fifteen_seconds():
    """A refresh has a deadline of its own, not what is left of the first Register's."""

    async def main():
        seen = []

        def look(call, entry):
            seen.append(call.remaining())

        async with World(Check("register", look)) as world:
            await world.client.register(Call().within(2), ep())
            await asyncio.sleep(45)
            assert seen == pytest.approx([2.0, 15.0])

    run(main())


def test_unregister_ends_it():
    """No Register is sent after the Unregister, also when that failed."""

    async def main():
        async with World(Inject(lambda: Unavailable("away"), "unregister")) as world:
            await world.client.register(Call(), ep())
            with pytest.raises(Unavailable):
                await world.client.unregister(Call(), ep())
            await asyncio.sleep(500)
            assert world.count.seen["register"] == 1
            assert not await world.there()
            assert len(world.refresh) == 0

    run(main())


def test_unregister_waits_for_a_refresh_under_way():
    """The Unregister is the last that the registry hears, and no timer outlives it."""

    class Slow(Element):
        async def register(self, call, entry, next):
            await asyncio.sleep(1)
            return await next.register(call, entry)

    async def main():
        async with World(Slow()) as world:
            await world.client.register(Call(), ep())
            await asyncio.sleep(40.5)
            assert world.count.seen["register"] == 2
            assert world.count.done["register"] == 1
            await world.client.unregister(Call(), ep())
            assert not await world.there()
            await asyncio.sleep(500)
            assert not await world.there()
            assert world.client.scope.timers == 0

    run(main())


def test_no_expiration_time_means_no_refresh():
    """A registry that says nothing is not asked again."""

    class Silent(Element):
        async def register(self, call, entry, next):
            answer = await next.register(call, entry)
            answer.ClearField("expiration_time")
            return answer

    async def main():
        async with World(Silent()) as world:
            await world.client.register(Call(), ep())
            await asyncio.sleep(500)
            assert world.count.seen["register"] == 1

    run(main())


def test_a_time_that_is_over_makes_no_hot_loop():
    """A registry whose clock is behind is asked every 200 ms at most."""

    async def main():
        async with World() as world:
            await world.client.register(Call(), ep(expiration_time=timestamp(EPOCH - 100)))
            await asyncio.sleep(0.1)
            assert world.count.seen["register"] == 1

    run(main())


def test_services_pass():
    """A service never expires and is never refreshed."""

    async def main():
        async with World() as world:
            await world.client.register(Call(), NetworkService(name="s"))
            await asyncio.sleep(500)
            assert world.count.seen["register"] == 1
            await world.client.unregister(Call(), NetworkService(name="s"))
            assert world.count.seen["unregister"] == 1

    run(main())


@pytest.mark.parametrize("step", [5.0, -5.0, 3600.0, -3600.0])
def test_a_clock_that_is_set_ends_no_registration_and_keeps_none(step):
    """Somebody sets the time of day: each comes again after 40 s, and ends a minute after nobody comes."""

    class Set(VirtualClock):
        by = 0.0

        def now(self):
            return super().now() + self.by

    async def main():
        clock = Set()
        async with World(clock=clock) as world:
            await world.client.register(Call(peer=Peer(in_process=True)), ep())
            for by in (0.0, step, 0.0):
                clock.by = by
                for _ in range(10):
                    await asyncio.sleep(10)
                    assert await world.there()
            times = [when for when, _ in world.sent]
            assert times == pytest.approx([40.0 * number for number in range(8)], abs=0.1)
            await world.registry.register(Call(), ep())
            world.refresh._kept.clear()  # its process is gone
            clock.by = step
            await asyncio.sleep(58)
            assert await world.there()
            await asyncio.sleep(3)
            assert not await world.there()

    run(main())


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_when_the_clock_is_set_it_registers_again_at_once(step):
    """What was answered has ended by the new time, or ends an hour late; then the rhythm is the old one."""

    async def main():
        clock = SettableClock()
        async with World(clock=clock) as world:
            await world.client.register(Call(peer=Peer(in_process=True)), ep())
            await asyncio.sleep(10.1)
            clock.by += step
            await asyncio.sleep(1)
            entry = await world.store.get("e")
            assert 0 < entry.expiration_time.seconds - clock.now() <= 60
            await asyncio.sleep(50)
            assert [round(when) for when, _ in world.sent] == [0, 10, 50]

    run(main())
