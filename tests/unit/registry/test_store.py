"""What every store promises, asked of each store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from nsmesh.core.errors import Exhausted
from nsmesh.core.virtual import run
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE
from nsmesh.registry.sqlite import RegistryFile
from nsmesh.registry.store import Change

BACKLOG = 8


@pytest.fixture(params=["memory", "sqlite"])
def endpoints(request, tmp_path) -> Iterator[object]:
    if request.param == "memory":
        yield MemoryStore(ENDPOINT, backlog=BACKLOG)
    else:
        with RegistryFile(tmp_path / "registry.db", backlog=BACKLOG) as file:
            yield file.endpoints


@pytest.fixture(params=["memory", "sqlite"])
def services(request, tmp_path) -> Iterator[object]:
    if request.param == "memory":
        yield MemoryStore(SERVICE)
    else:
        with RegistryFile(tmp_path / "registry.db") as file:
            yield file.services


def ep(name: str, *names: str, url: str = "tcp://h:1") -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(name=name, network_service_names=names, url=url)


async def take(watch, count: int) -> list[tuple[str, str, bool]]:
    async with asyncio.timeout(1):
        return [
            (change.entry.name, change.entry.url, change.deleted)
            for change in [await anext(watch) for _ in range(count)]
        ]


async def idle(watch) -> bool:
    try:
        async with asyncio.timeout(1):
            await anext(watch)
    except TimeoutError:
        return True
    return False


def test_put_get_list_remove(endpoints):
    """What was put is got and listed, once, in its last form; what was removed is gone, and known to be."""

    async def main():
        assert await endpoints.put(ep("a", "s")) == ep("a", "s")
        await endpoints.put(ep("a", "t"))
        await endpoints.put(ep("b", "s", "t"))
        assert await endpoints.get("a") == ep("a", "t")
        assert await endpoints.get("zz") is None
        assert len(endpoints) == 2
        listed = {e.name for e in await endpoints.list(NetworkServiceEndpoint())}
        assert listed == {"a", "b"}
        assert [e.name for e in await endpoints.list(ep("", "s", url=""))] == ["b"]
        assert {e.name for e in await endpoints.list(ep("", "t", url=""))} == {"a", "b"}
        assert [e.name for e in await endpoints.list(ep("", "t", "s", url=""))] == ["b"]
        assert await endpoints.list(ep("", "none", url="")) == []
        assert await endpoints.list(ep("a", "s", url="")) == []
        assert await endpoints.remove("a") is True
        assert await endpoints.remove("a") is False
        assert await endpoints.get("a") is None
        assert await endpoints.list(NetworkServiceEndpoint(name="a")) == []

    run(main())


def test_what_is_put_is_copied(endpoints):
    """A caller that goes on writing into its message changes nothing in the store."""

    async def main():
        mine = ep("a", "s")
        await endpoints.put(mine)
        mine.url = "changed"
        assert (await endpoints.get("a")).url == "tcp://h:1"

    run(main())


def test_watch_begins_with_what_is_there_and_goes_on(endpoints):
    """Present matches first, then each create, update and delete of a match, in order, and no other."""

    async def main():
        await endpoints.put(ep("a", "s"))
        await endpoints.put(ep("x", "other"))
        watch = endpoints.watch(ep("", "s", url=""))
        await endpoints.put(ep("b", "s"))
        await endpoints.put(ep("x", "other"))
        await endpoints.put(ep("a", "s", url="tcp://h:2"))
        await endpoints.remove("b")
        await endpoints.remove("x")
        assert await take(watch, 4) == [
            ("a", "tcp://h:1", False),
            ("b", "tcp://h:1", False),
            ("a", "tcp://h:2", False),
            ("b", "tcp://h:1", True),
        ]
        assert await idle(watch)
        watch.close()

    run(main())


def test_an_unchanged_put_is_told(endpoints):
    """Registering again what is there is an event, as in Go: the watcher sees the sign of life."""

    async def main():
        watch = endpoints.watch(NetworkServiceEndpoint(name="a"))
        await endpoints.put(ep("a"))
        await endpoints.put(ep("a"))
        assert await take(watch, 2) == [("a", "tcp://h:1", False)] * 2
        watch.close()

    run(main())


def test_an_entry_that_no_longer_matches_leaves_silently(endpoints):
    """The wire contract tells a watcher of matches only; so does its removal later."""

    async def main():
        watch = endpoints.watch(ep("", "s", url=""))
        await endpoints.put(ep("a", "s"))
        await endpoints.put(ep("a", "t"))
        await endpoints.remove("a")
        await endpoints.put(ep("z", "s"))
        assert [name for name, _, _ in await take(watch, 2)] == ["a", "z"]
        watch.close()

    run(main())


def test_a_waiting_reader_wakes(endpoints):
    """A reader that waits gets the next change when it happens, and its end when the watch is closed."""

    async def main():
        watch = endpoints.watch(NetworkServiceEndpoint(name="a"))
        seen = []

        async def read():
            seen.extend([change async for change in watch])

        async with asyncio.timeout(1), asyncio.TaskGroup() as group:
            group.create_task(read())
            await asyncio.sleep(0)
            await endpoints.put(ep("a"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            watch.close()
        assert seen == [Change(ep("a"))]
        assert endpoints.watchers == 0

    run(main())


def test_a_slow_reader_is_cut_off(endpoints):
    """Who does not read is ended with Exhausted after its backlog, and holds no memory from then on."""

    async def main():
        await endpoints.put(ep("first"))
        slow = endpoints.watch(NetworkServiceEndpoint())
        quick = endpoints.watch(NetworkServiceEndpoint())
        await take(quick, 1)
        for number in range(BACKLOG + 1):
            await endpoints.put(ep(f"n{number}"))
            await take(quick, 1)
        assert endpoints.watchers == 1
        with pytest.raises(Exhausted, match="changes behind"):
            await anext(slow)
        await endpoints.put(ep("last"))
        assert await take(quick, 1) == [("last", "tcp://h:1", False)]
        quick.close()
        quick.close()
        with pytest.raises(StopAsyncIteration):
            await anext(quick)

    run(main())


def test_what_is_there_at_first_does_not_count_as_backlog(endpoints):
    """A watch of more entries than its backlog begins all the same."""

    async def main():
        for number in range(3 * BACKLOG):
            await endpoints.put(ep(f"n{number}"))
        watch = endpoints.watch(NetworkServiceEndpoint())
        for _ in range(BACKLOG):
            await endpoints.put(ep("n0"))
        assert len(await take(watch, 4 * BACKLOG)) == 4 * BACKLOG
        watch.close()

    run(main())


def test_services_are_stored_the_same_way(services):
    """The other kind: found by payload, watched by name."""

    async def main():
        watch = services.watch(NetworkService(name="s"))
        await services.put(NetworkService(name="s", payload="IP"))
        await services.put(NetworkService(name="t", payload="ETHERNET"))
        assert [s.name for s in await services.list(NetworkService(payload="ETHERNET"))] == ["t"]
        await services.remove("s")
        changes = [await anext(watch), await anext(watch)]
        assert [(change.entry.payload, change.deleted) for change in changes] == [("IP", False), ("IP", True)]
        watch.close()

    run(main())
