"""Mirror, in virtual time, against a registry whose watch lags and breaks."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Unavailable
from nsmesh.core.probes import Count, Inject
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.elements.mirror import Mirror
from nsmesh.model.messages import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceQuery,
)
from nsmesh.model.times import timestamp
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE, content_of


class Lag(Element):
    """Holds each item of a watch back for ``delay`` seconds, as a slow stream would; breaks it on ``cut``."""

    def __init__(self, delay: float = 0.0):
        self.delay = delay
        self.cuts: set[asyncio.Event] = set()
        self.told: dict[str, bool] = {}
        """What the watch said last of each name: whether it is there."""

    def cut(self) -> None:
        for event in tuple(self.cuts):
            event.set()

    async def find(self, call, query, next):
        if not query.watch:
            async for item in next.find(call, query):
                yield item
            return
        cut, items = asyncio.Event(), asyncio.Queue()
        self.cuts.add(cut)

        async def pump():
            loop = asyncio.get_running_loop()
            async for item in next.find(call, query):
                items.put_nowait((loop.time() + self.delay, item))

        work = asyncio.ensure_future(pump())
        broken = asyncio.ensure_future(cut.wait())
        try:
            while True:
                getting = asyncio.ensure_future(items.get())
                try:
                    await asyncio.wait((getting, broken), return_when=asyncio.FIRST_COMPLETED)
                    if cut.is_set():
                        raise Unavailable("the connection broke")
                    due, item = getting.result()
                    wait = due - asyncio.get_running_loop().time()
                    if wait > 0:
                        await asyncio.wait((broken,), timeout=wait)
                    if cut.is_set():
                        raise Unavailable("the connection broke")
                finally:
                    getting.cancel()
                self.told[content_of(item).name] = not item.deleted
                yield item
        finally:
            self.cuts.discard(cut)
            work.cancel()
            broken.cancel()


class World:
    def __init__(self, *between: Element, delay: float = 0.0):
        self.registry = Registry(MemoryStore(SERVICE), MemoryStore(ENDPOINT))
        self.mirror = Mirror()
        self.count = Count()
        self.lag = Lag(delay)
        self.chain = chain(
            self.mirror,
            self.count,
            *between,
            self.lag,
            end=self.registry,
            clock=VirtualClock(),
            name="mirror",
        )

    async def find(self, **template) -> dict[str, str]:
        query = NetworkServiceEndpointQuery(network_service_endpoint=NetworkServiceEndpoint(**template))
        return {content_of(i).name: content_of(i).url async for i in self.chain.find(Call(), query)}

    async def find_services(self, **template) -> list[str]:
        query = NetworkServiceQuery(network_service=NetworkService(**template))
        return [content_of(i).name async for i in self.chain.find(Call(), query)]

    async def ready(self) -> None:
        """Have both kinds synchronised."""
        await self.registry.register(Call(), ep("first"))
        await self.registry.register(Call(), NetworkService(name="first"))
        await self.find()
        await self.find_services()
        for _ in range(100):
            await asyncio.sleep(0.1)
            if self.mirror.synchronised == (True, True):
                self.count.seen.clear()
                return
        raise AssertionError("never synchronised")

    @property
    def asked(self) -> int:
        return self.count.seen["find"]


@asynccontextmanager
async def running(*between: Element, delay: float = 0.0):
    world = World(*between, delay=delay)
    async with world.chain.running():
        yield world


def ep(name: str, url: str = "tcp://h:1", **fields) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(name=name, url=url, network_service_names=["s"], **fields)


def test_once_synchronised_it_answers_without_asking():
    """One watch for each kind; a thousand Finds cost the registry nothing."""

    async def main():
        async with running() as world:
            await world.ready()
            for number in range(1000):
                assert await world.find(network_service_names=["s"], url="h:1") == {"first": "tcp://h:1"}
                assert await world.find_services(name="first") == ["first"]
                if number == 500:
                    await asyncio.sleep(100)
            assert world.asked == 0
            assert world.registry.endpoints.watchers == 1
            assert world.registry.services.watchers == 1

    run(main())


def test_it_follows_the_registry():
    """What others register, change and unregister is seen, a moment later."""

    async def main():
        async with running() as world:
            await world.ready()
            await world.registry.register(Call(), ep("a"))
            await asyncio.sleep(0.01)
            assert await world.find(name="a") == {"a": "tcp://h:1"}
            await world.registry.register(Call(), ep("a", "tcp://h:2"))
            await asyncio.sleep(0.01)
            assert await world.find(name="a") == {"a": "tcp://h:2"}
            await world.registry.unregister(Call(), ep("a"))
            await asyncio.sleep(0.01)
            assert world.asked == 0
            assert await world.find() == {"first": "tcp://h:1"}
            assert world.asked == 0

    run(main())


def test_nothing_found_is_asked_of_the_registry():
    """An entry that the watch has not told of yet is found all the same; "not here" is never assumed."""

    async def main():
        async with running(delay=3.0) as world:
            await world.ready()
            await world.registry.register(Call(), ep("new"))
            assert await world.find(name="new") == {"new": "tcp://h:1"}
            assert await world.find(name="none") == {}
            assert world.asked == 2

    run(main())


def test_an_empty_registry_is_asked_each_time():
    """Without a first word of the watch nothing is sure."""

    async def main():
        async with running() as world:
            assert await world.find() == {}
            await asyncio.sleep(10)
            assert await world.find() == {}
            assert world.mirror.synchronised == (False, False)
            await world.registry.register(Call(), ep("a"))
            await asyncio.sleep(0.5)
            assert world.mirror.synchronised == (False, True)
            assert await world.find() == {"a": "tcp://h:1"}

    run(main())


@pytest.mark.parametrize("delay", [0.0, 1.5])
def test_own_writes_are_read(delay):
    """After a Register or Unregister through here, Find shows it, however late the watch tells of it."""

    async def main():
        async with running(delay=delay) as world:
            await world.ready()
            await asyncio.sleep(2)
            await world.chain.register(Call(), ep("first", "tcp://h:9"))
            assert await world.find(network_service_names=["s"]) == {"first": "tcp://h:9"}
            await world.chain.register(Call(), ep("second"))
            assert set(await world.find(network_service_names=["s"])) == {"first", "second"}
            await world.chain.unregister(Call(), ep("second"))
            assert set(await world.find(network_service_names=["s"])) == {"first"}
            await asyncio.sleep(delay + 0.1)
            world.count.seen.clear()
            assert await world.find(network_service_names=["s"]) == {"first": "tcp://h:9"}
            assert world.asked == 0

    run(main())


def test_an_own_write_leaves_other_answers_alone():
    """Only questions that the changed entry may answer go to the registry meanwhile."""

    async def main():
        async with running(delay=1.0) as world:
            await world.ready()
            await world.registry.register(Call(), ep("other"))
            await asyncio.sleep(2)
            await world.chain.register(Call(), ep("first", "tcp://h:9"))
            assert await world.find(name="other") == {"other": "tcp://h:1"}
            assert world.asked == 0

    run(main())


def test_doubt_ends():
    """A change that the watch never tells of, because another followed it at once, is doubted for 5 s."""

    async def main():
        async with running() as world:
            await world.ready()
            original = world.registry.register

            async def overtaken(call, entry):
                answer = await original(call, entry)
                answer.path_ids.append("only in the answer")
                return answer

            world.registry.register = overtaken
            await world.chain.register(Call(), ep("first", "tcp://h:2"))
            await asyncio.sleep(1)
            await world.find(name="first")
            assert world.asked == 1
            await asyncio.sleep(5)
            assert await world.find(name="first") == {"first": "tcp://h:2"}
            assert world.asked == 1

    run(main())


def test_a_broken_watch_invalidates_at_once():
    """From the break on every question goes to the registry, until there is a new copy."""

    async def main():
        async with running() as world:
            await world.ready()
            world.lag.cut()
            await asyncio.sleep(0.001)
            assert world.mirror.synchronised == (False, False)
            await world.registry.unregister(Call(), ep("first"))
            await world.registry.register(Call(), ep("a"))
            assert await world.find() == {"a": "tcp://h:1"}
            assert world.asked == 1
            await asyncio.sleep(2)
            assert world.mirror.synchronised == (True, True)
            world.count.seen.clear()
            assert await world.find() == {"a": "tcp://h:1"}
            assert world.asked == 0

    run(main())


def test_a_registry_that_is_away_is_told_as_it_is():
    """While neither watch nor question can be answered, the caller gets the registry's error."""

    class Away(Element):
        away = True

        def find(self, call, query, next):
            return self.broken() if self.away else next.find(call, query)

        async def broken(self):
            raise Unavailable("registry is away")
            yield

    async def main():
        away = Away()
        async with running(away) as world:
            await world.registry.register(Call(), ep("a"))
            with pytest.raises(Unavailable, match="registry is away"):
                await world.find()
            await asyncio.sleep(60)
            assert world.asked < 50
            away.away = False
            await asyncio.sleep(4)
            assert world.mirror.synchronised == (False, True)

    run(main())


def test_watches_are_answered_from_memory():
    """Present matches, then changes; many watchers cost the registry one watch."""

    async def main():
        async with running() as world:
            await world.ready()
            query = NetworkServiceEndpointQuery(network_service_endpoint=ep("", url=""), watch=True)
            async with aclosing(world.chain.find(Call(), query)) as found:
                assert content_of(await anext(found)).name == "first"
                await world.registry.register(Call(), ep("a"))
                assert content_of(await anext(found)).name == "a"
                await world.registry.unregister(Call(), ep("a"))
                item = await anext(found)
                assert (content_of(item).name, item.deleted) == ("a", True)
            assert world.asked == 0
            assert world.registry.endpoints.watchers == 1

    run(main())


def test_watches_end_when_the_watch_breaks():
    """Who follows is told at once, so that it registers or asks again, as with the registry itself."""

    async def main():
        async with running() as world:
            await world.ready()
            async with aclosing(world.chain.find(Call(), NetworkServiceEndpointQuery(watch=True))) as found:
                await anext(found)
                world.lag.cut()
                with pytest.raises(Unavailable, match="broke - watch again"):
                    await anext(found)

    run(main())


def test_what_is_over_is_not_served():
    """An entry past its expiration time is left out, before the registry has removed it, also of a watch."""

    async def main():
        async with running() as world:
            await world.ready()
            await world.registry.register(Call(), ep("e", expiration_time=timestamp(EPOCH + 30)))
            await asyncio.sleep(1)
            assert set(await world.find()) == {"first", "e"}
            await asyncio.sleep(30)
            assert set(await world.find()) == {"first"}
            assert await world.find(name="e") == {}
            async with aclosing(world.chain.find(Call(), NetworkServiceEndpointQuery(watch=True))) as found:
                assert content_of(await anext(found)).name == "first"
                await world.registry.unregister(Call(), ep("e"))
                assert (await anext(found)).deleted

    run(main())


@pytest.mark.parametrize("watch", [False, True])
def test_other_domains_are_asked(watch):
    """A name with a domain is not in this registry's watch: the question goes on."""

    async def main():
        async with running() as world:
            await world.ready()
            templates = [
                NetworkServiceEndpoint(name="e@far"),
                NetworkServiceEndpoint(network_service_names=["s@far"]),
            ]
            for number, template in enumerate(templates, 1):
                query = NetworkServiceEndpointQuery(network_service_endpoint=template, watch=watch)
                async with aclosing(world.chain.find(Call(), query)) as found:
                    waiting = asyncio.ensure_future(anext(found, None))
                    await asyncio.sleep(0.1)
                    waiting.cancel()
                    await asyncio.wait((waiting,))
                assert world.asked == number
            await world.chain.register(Call(), ep("x@far"))
            assert await world.find(network_service_names=["s"])
            assert world.asked == 2

    run(main())


def test_a_slow_list_is_asked_for_again():
    """An entry that is removed between list and watch does not keep the copy unsynchronised for ever."""

    class Ghost(Element):
        """A list that once contains what no watch tells of."""

        lists = 0

        async def find(self, call, query, next):
            if not query.watch:
                self.lists += 1
                if self.lists == 2:  # the first one is the question itself
                    yield ENDPOINT.found(ep("ghost"))
            async with aclosing(next.find(call, query)) as found:
                async for item in found:
                    yield item

    async def main():
        ghost = Ghost()
        async with running(ghost) as world:
            await world.registry.register(Call(), ep("a"))
            await world.find()
            await asyncio.sleep(0.9)
            assert world.mirror.synchronised == (False, False)
            await asyncio.sleep(0.6)
            assert world.mirror.synchronised == (False, True)
            assert ghost.lists == 3

    run(main())


def test_what_was_deleted_meanwhile_is_left_out():
    """An answer that was on its way while the watch told of a delete does not bring the entry back."""

    class SlowList(Element):
        pause = 0.0

        async def find(self, call, query, next):
            if query.watch:
                async for item in next.find(call, query):
                    yield item
            else:
                items = [item async for item in next.find(call, query)]
                await asyncio.sleep(self.pause)
                for item in items:
                    yield item

    async def main():
        slow = SlowList()
        async with running(slow, delay=0.1) as world:
            await world.ready()
            slow.pause = 1.0
            await world.registry.register(Call(), ep("x"))
            finding = asyncio.ensure_future(world.find(name="x"))
            await asyncio.sleep(0.5)
            await world.registry.unregister(Call(), ep("x"))
            assert await finding == {}
            assert world.asked == 1

    run(main())


def test_a_failed_write_changes_nothing():
    """An error of the registry is the caller's; answers stay."""

    async def main():
        async with running(Inject(lambda: Unavailable("away"), "register", "unregister")) as world:
            await world.ready()
            with pytest.raises(Unavailable):
                await world.chain.register(Call(), ep("first", "tcp://h:5"))
            with pytest.raises(Unavailable):
                await world.chain.unregister(Call(), ep("first"))
            assert await world.find() == {"first": "tcp://h:1"}
            assert world.asked == 0

    run(main())


def test_nothing_is_left_when_the_chain_ends():
    """No watch is open at the registry, and the same chain may run again."""

    async def main():
        world = World()
        for _ in range(2):
            async with world.chain.running():
                await world.ready()
            await asyncio.sleep(0.01)
            assert world.chain.scope.tasks == 0
            assert world.registry.endpoints.watchers == 0
            assert world.mirror.synchronised == (False, False)

    run(main())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["own", "other"]), st.sampled_from("ab"), st.sampled_from(["u", "v"])),
        st.tuples(st.sampled_from(["own-", "other-"]), st.sampled_from("ab"), st.just("")),
        st.tuples(st.sampled_from(["wait", "cut"]), st.just(""), st.floats(0.0, 1.0)),
    ),
    max_size=20,
)


async def act(world: World, own: dict[str, str | None], verb: str, name: str, value) -> None:
    """Do one step; ``own`` is what this process wrote last, where nobody else changed it since."""
    if verb == "wait":
        await asyncio.sleep(value)
    elif verb == "cut":
        world.lag.cut()
        await asyncio.sleep(0)
    else:
        through = world.chain if verb.startswith("own") else world.registry
        if verb.endswith("-"):
            await through.unregister(Call(), ep(name))
        else:
            await through.register(Call(), ep(name, value))
        own.pop(name, None)
        if through is world.chain:
            own[name] = value or None


async def verify(world: World, own: dict[str, str | None], **template) -> None:
    seen = await world.find(**template)
    for name, url in own.items():
        if template.get("name", name) == name:
            assert seen.get(name) == url
    for name in seen:
        assert world.lag.told.get(name, True) or await world.registry.endpoints.get(name) is not None


@settings(deadline=None, max_examples=80)
@given(STEPS, st.sampled_from([0.0, 0.3]))
@example(
    [("own", "a", "u"), ("wait", "", 1e-9), ("own-", "a", ""), ("wait", "", 0.0), ("wait", "", 1e-9)], 0.0
)
@example([("other", "b", "u"), ("wait", "", 0.25), ("own-", "b", ""), ("wait", "", 0.25)], 0.3)
def test_any_order_reads_own_writes_and_serves_nothing_deleted(steps, delay):
    """Whatever others do and however late or broken the watch is.

    What this process wrote last is read as long as nobody else changed that name; what the watch last said is
    deleted is not served, unless it is there again; and in the end the copy equals the registry.
    """

    async def main():
        async with running(delay=delay) as world:
            await world.find()
            own: dict[str, str | None] = {}
            for verb, name, value in steps:
                await act(world, own, verb, name, value)
                await verify(world, own, network_service_names=["s"])
                await verify(world, own, name="a")
                await verify(world, own)
            await asyncio.sleep(10)
            expected = {e.name: e.url for e in await world.registry.endpoints.list(NetworkServiceEndpoint())}
            world.count.seen.clear()
            assert await world.find() == expected
            assert world.asked == (0 if expected else 1)

    run(main())
