"""Expire: contract 4.6 and 6, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Chain, Element, chain
from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.core.expiry import EXPIRES, limited
from nsmesh.core.probes import Count, Inject
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.elements.expire import Expire
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.model.times import seconds, timestamp
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE


class Answer(Element):
    """Changes what the next hop answers."""

    def __init__(self, change):
        self.change = change

    async def register(self, call, entry, next):
        answer = await next.register(call, entry)
        self.change(answer)
        return answer


class World:
    def __init__(self, *behind: Element, period: float = 60.0):
        self.registry = Registry(MemoryStore(SERVICE), MemoryStore(ENDPOINT))
        self.expire = Expire(period, origin=self.registry)
        self.chain: Chain = chain(
            Begin(), self.expire, *behind, end=self.registry, clock=VirtualClock(), name="registry"
        )

    async def there(self, name: str = "e") -> bool:
        return await self.registry.endpoints.get(name) is not None

    async def gone_at(self, until: float = 200.0, step: float = 0.05) -> float:
        """Return the virtual time at which "e" is gone."""
        loop = asyncio.get_running_loop()
        while await self.there():
            assert loop.time() < until
            await asyncio.sleep(step)
        return loop.time()


def ep(name: str = "e", wish: float | None = None) -> NetworkServiceEndpoint:
    entry = NetworkServiceEndpoint(name=name, url="tcp://h:1")
    if wish is not None:
        entry.expiration_time.CopyFrom(timestamp(EPOCH + wish))
    return entry


def life(entry) -> float:
    return seconds(entry.expiration_time) - EPOCH


@asynccontextmanager
async def running(*behind: Element, period: float = 60.0):
    world = World(*behind, period=period)
    async with world.chain.running():
        yield world


def test_an_endpoint_gets_a_period_and_goes_after_it():
    """Without a wish, credentials or a deadline the time is now + period, and that is when it goes."""

    async def main():
        async with running() as world:
            answer = await world.chain.register(Call(), ep())
            assert life(answer) == pytest.approx(60.0)
            assert await world.gone_at() == pytest.approx(60.0, abs=0.1)
            assert len(world.expire) == 0

    run(main())


def test_the_unregister_comes_before_by_the_deadline():
    """As in Go: an endpoint that does not register again disappears at 60 s - 15 s = 45 s."""

    async def main():
        async with running() as world:
            answer = await world.chain.register(Call().within(15), ep())
            assert life(answer) == pytest.approx(60.0)
            assert await world.gone_at() == pytest.approx(45.0, abs=0.1)

    run(main())


def test_a_wish_is_only_lowered():
    """An earlier wish is kept to the nanosecond, a later one lowered; a quarter at most is taken off."""

    async def main():
        async with running() as world:
            early = ep(wish=18.0)
            early.expiration_time.nanos = 123_456_789
            answer = await world.chain.register(Call().within(15), early)
            assert answer.expiration_time == early.expiration_time
            gone = await world.gone_at()
            assert gone == pytest.approx(18.12 * 3 / 4, abs=0.1)
            answer = await world.chain.register(Call(), ep(wish=10_000.0))
            assert life(answer) == pytest.approx(gone + 60, abs=0.2)

    run(main())


def test_a_time_that_is_over_unregisters_at_once():
    """A wish in the past is answered as it is, and the endpoint is gone in the next moment."""

    async def main():
        async with running() as world:
            answer = await world.chain.register(Call().within(15), ep(wish=-5.0))
            assert life(answer) == -5.0
            assert await world.gone_at() < 0.1

    run(main())


def test_credentials_lower_the_time():
    """The first credential to run out bounds the life; the earlier of two is what counts."""

    async def main():
        call = limited(limited(Call(), EPOCH + 30.0), EPOCH + 40.0)
        assert call.get(EXPIRES) == EPOCH + 30.0
        async with running() as world:
            assert life(await world.chain.register(call, ep())) == 30.0
            assert await world.gone_at() == pytest.approx(30.0, abs=0.1)

    run(main())


def test_the_next_hop_may_lower_the_time():
    """The earlier of our candidate and the answer's time is armed and told."""

    async def main():
        lower = Answer(lambda answer: answer.expiration_time.CopyFrom(timestamp(EPOCH + 12.0)))
        async with running(lower) as world:
            assert life(await world.chain.register(Call(), ep())) == 12.0
            assert await world.gone_at() == pytest.approx(12.0, abs=0.1)

    run(main())


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer.ClearField("expiration_time"),
        lambda answer: answer.expiration_time.CopyFrom(timestamp(EPOCH + 9999.0)),
    ],
)
def test_an_answer_always_has_a_time_not_later_than_ours(change):
    """A next hop that forgets the time or raises it does not reach the registrant."""

    async def main():
        async with running(Answer(change)) as world:
            assert life(await world.chain.register(Call(), ep())) == pytest.approx(60.0)
            assert await world.gone_at() == pytest.approx(60.0, abs=0.1)

    run(main())


@pytest.mark.parametrize("period", [5.0, 20.0, 30.0, 45.0, 60.0])
@pytest.mark.parametrize("deadline", [2.0, 15.0, 100.0])
def test_whoever_registers_again_at_two_thirds_stays(period, deadline):
    """However short the life, long the deadline: nothing is unregistered meanwhile, and it ends in time."""

    async def main():
        count = Count()
        async with running(count, period=period) as world:
            for _ in range(50):
                await world.chain.register(Call().within(deadline), ep())
                await asyncio.sleep(period * 2 / 3 + 0.2)
            assert count.seen["unregister"] == 0
            await world.chain.register(Call().within(deadline), ep())
            begun = asyncio.get_running_loop().time()
            gone = await world.gone_at(until=begun + 100) - begun
            assert gone == pytest.approx(period - min(deadline, period / 4), abs=0.1)

    run(main())


def test_registering_again_starts_anew():
    """Each Register moves the end; sent with its old time it does not."""

    async def main():
        async with running() as world:
            first = await world.chain.register(Call(), ep())
            await asyncio.sleep(40)
            await world.chain.register(Call(), ep())
            await asyncio.sleep(40)
            assert await world.there()
            assert await world.gone_at() == pytest.approx(100.0, abs=0.1)
            await world.chain.register(Call(), ep())
            second = await world.chain.register(Call(), first)
            assert life(second) == pytest.approx(60.0)

    run(main())


def test_services_never_expire():
    """A service stays for days and has no timer."""

    async def main():
        async with running() as world:
            await world.chain.register(Call(), NetworkService(name="s"))
            await asyncio.sleep(1e6)
            assert await world.registry.services.get("s") is not None
            assert len(world.expire) == 0
            await world.chain.unregister(Call(), NetworkService(name="s"))
            assert await world.registry.services.get("s") is None

    run(main())


def test_unregister_ends_the_timer():
    """After an Unregister nothing is unregistered a second time."""

    async def main():
        count = Count()
        async with running(count) as world:
            await world.chain.register(Call(), ep())
            await world.chain.unregister(Call(), ep())
            assert world.chain.scope.timers == 0 or len(world.expire) == 0
            await asyncio.sleep(100)
            assert count.seen["unregister"] == 1

    run(main())


def test_an_unregister_that_failed_leaves_the_timer():
    """The registrant is told; the entry still goes away when its time has come."""

    async def main():
        async with running(Inject(lambda: Unavailable("away"), "unregister", times=1)) as world:
            await world.chain.register(Call(), ep())
            with pytest.raises(Unavailable):
                await world.chain.unregister(Call(), ep())
            assert await world.gone_at() == pytest.approx(60.0, abs=0.1)

    run(main())


def test_a_register_that_was_refused_leaves_the_old_timer():
    """The old registration keeps the time that it had."""

    async def main():
        failing = Inject(lambda: Invalid("no"), "register", times=0)
        async with running(failing) as world:
            await world.chain.register(Call(), ep())
            await asyncio.sleep(30)
            failing.times = 1
            with pytest.raises(Invalid):
                await world.chain.register(Call(), ep())
            assert await world.gone_at() == pytest.approx(60.0, abs=0.1)

    run(main())


def test_an_unregister_of_our_own_is_repeated():
    """When the store cannot remove an expired entry it is tried again, with growing pauses, until it can."""

    async def main():
        async with running(Inject(lambda: Unavailable("disk"), "unregister", times=4)) as world:
            await world.chain.register(Call(), ep())
            assert 65.0 < await world.gone_at() < 90.0
            assert len(world.expire) == 0

    run(main())


def test_a_register_wins_over_its_own_expiry():
    """One that comes while the Unregister of its predecessor is tried is not undone by it."""

    async def main():
        failing = Inject(lambda: Unavailable("disk"), "unregister", times=1)
        async with running(failing) as world:
            await world.chain.register(Call(), ep())
            await asyncio.sleep(60.5)
            assert failing.times == 0
            await world.chain.register(Call(), ep())
            await asyncio.sleep(50)
            assert await world.there()

    run(main())


def test_restart_takes_timers_up_again():
    """Entries that outlived the process keep their time, those past it go, those without get a period."""

    async def main():
        world = World()
        store = world.registry.endpoints
        await store.put(ep("past", wish=-10.0))
        await store.put(ep("e", wish=20.0))
        await store.put(ep("none"))
        async with world.chain.running():
            assert len(world.expire) == 3
            await asyncio.sleep(0.01)
            assert not await world.there("past")
            assert await world.gone_at() == pytest.approx(20.0, abs=0.1)
            await asyncio.sleep(39)
            assert await world.there("none")
            await asyncio.sleep(2)
            assert not await world.there("none")

    run(main())


def test_nothing_is_left_when_the_chain_ends():
    """No timer fires after the chain has been left, and the stored entry stays."""

    async def main():
        async with running() as world:
            await world.chain.register(Call(), ep())
        assert world.chain.scope.timers == 0
        await asyncio.sleep(1000)
        assert await world.there()

    run(main())


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["register", "unregister", "wait"]),
        st.sampled_from(["a", "b"]),
        st.floats(0.0, 40.0),
        st.sampled_from([None, 5.0, 15.0]),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_any_order_leaves_no_timer_and_keeps_the_promise(steps):
    """An entry is there from its last Register until its time less the deadline, or its Unregister."""

    async def main():
        async with running() as world:
            ends: dict[str, float] = {}
            loop = asyncio.get_running_loop()
            for verb, name, pause, deadline in steps:
                call = Call() if deadline is None else Call().within(deadline)
                if verb == "register":
                    await world.chain.register(call, ep(name))
                    ends[name] = loop.time() + 60.0 - (deadline or 0.0)
                elif verb == "unregister":
                    await world.chain.unregister(call, ep(name))
                    ends.pop(name, None)
                else:
                    await asyncio.sleep(pause)
                now = loop.time()
                for known in ("a", "b"):
                    if abs(ends.get(known, now + 99) - now) > 0.01:
                        assert await world.there(known) is (known in ends and ends[known] > now)
            await asyncio.sleep(100)
            assert not await world.there("a")
            assert not await world.there("b")
            assert len(world.expire) == 0
            assert world.chain.scope.timers == 0

    run(main())


class Away(Element):
    """Cannot be reached while a test says so."""

    away = False

    async def register(self, call, entry, next):
        if self.away:
            raise Unavailable("away")
        return await next.register(call, entry)

    async def unregister(self, call, entry, next):
        if self.away:
            raise Unavailable("away")
        await next.unregister(call, entry)


@pytest.mark.parametrize("late", [False, True])
def test_who_registers_again_while_the_next_hop_is_away_is_not_unregistered(late):
    """Also where an Unregister was under way already; who then says no more goes in time."""

    async def main():
        away = Away()
        world = World(away)
        async with world.chain.running():
            await world.chain.register(Call(), ep())
            away.away = True
            await asyncio.sleep(70 if late else 20)
            for _ in range(7):
                with pytest.raises(Unavailable):
                    await world.chain.register(Call(), ep())
                await asyncio.sleep(20)
            away.away = False
            before = asyncio.get_running_loop().time()
            await asyncio.sleep(39)
            assert await world.there()
            assert await world.gone_at(before + 41) <= before + 40.1
            assert len(world.expire) == 0

    run(main())
