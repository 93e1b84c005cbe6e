"""The hub of a monitor: what subscribers hear, and what a slow one costs."""

import asyncio

import pytest

from nsmesh.core.call import Peer
from nsmesh.core.errors import Unavailable
from nsmesh.core.hub import BATCH, BATCH_BYTES, Hub
from nsmesh.core.virtual import run
from nsmesh.model.messages import (
    Connection,
    ConnectionEventType,
    MonitorScopeSelector,
    Path,
    PathSegment,
    State,
)

ALL = MonitorScopeSelector()


def connection(name="x", state=State.UP):
    path = Path(index=0, path_segments=[PathSegment(name="n", id=name, token="t")])
    return Connection(id=name, path=path, state=state)


def kinds(event):
    return ConnectionEventType.Name(event.type), sorted(event.connections)


def test_the_first_event_comes_at_once_also_when_empty():
    """A client blocks on it before its first Request."""

    async def main():
        stream = Hub("h").subscribe(Peer(), ALL)
        assert kinds(await anext(stream)) == ("INITIAL_STATE_TRANSFER", [])
        await stream.aclose()

    run(main())


def test_selectors_filter_the_first_event_and_the_later_ones():
    """Who asks for one connection hears of that one alone."""

    async def main():
        hub = Hub("h")
        hub.put(connection("x"), "")
        hub.put(connection("y"), "")
        wanted = MonitorScopeSelector(path_segments=[PathSegment(id="y")])
        stream = hub.subscribe(Peer(), wanted)
        assert kinds(await anext(stream)) == ("INITIAL_STATE_TRANSFER", ["y"])
        hub.drop("x")
        hub.drop("y")
        assert kinds(await anext(stream)) == ("DELETE", ["y"])
        await stream.aclose()
        assert hub.subscribers == 0

    run(main())


def test_a_slow_subscriber_gets_the_newest_state_once():
    """Thousand changes wait as one; what came and went unheard is not told; a DELETE of the heard is."""

    async def main():
        hub = Hub("h")
        hub.put(connection("old"), "")
        stream = hub.subscribe(Peer(), ALL)
        await anext(stream)
        for number in range(1000):
            hub.put(connection("x", State.DOWN if number < 999 else State.UP), "")
            hub.put(connection(f"brief-{number}"), "")
            hub.drop(f"brief-{number}")
        hub.drop("old")
        assert kinds(await anext(stream)) == ("DELETE", ["old"])
        event = await anext(stream)
        assert kinds(event) == ("UPDATE", ["x"])
        assert event.connections["x"].state == State.UP
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await anext(stream)

    run(main())


def test_many_connections_come_in_batches():
    """No event is larger than what peers accept; nobody is missed or told twice."""

    async def main():
        hub = Hub("h")
        for number in range(3 * BATCH + 1):
            hub.put(connection(str(number)), "")
        stream = hub.subscribe(Peer(), ALL)
        heard = []
        for expected in ("INITIAL_STATE_TRANSFER", "UPDATE", "UPDATE", "UPDATE"):
            event = await anext(stream)
            assert kinds(event)[0] == expected
            assert len(event.connections) <= BATCH
            heard += event.connections
        assert sorted(heard) == sorted(str(number) for number in range(3 * BATCH + 1))
        await stream.aclose()

    run(main())


def test_large_connections_come_in_smaller_batches():
    """No event is larger than what peers accept, unless a single connection is; none is left out."""

    async def main():
        hub = Hub("h")
        for number in range(40):
            large = connection(str(number))
            large.labels["filler"] = "x" * (BATCH_BYTES // 10)
            hub.put(large, "")
        stream = hub.subscribe(Peer(), ALL)
        heard = set()
        while len(heard) < 40:
            event = await anext(stream)
            assert event.ByteSize() < BATCH_BYTES * 1.1
            heard |= set(event.connections)
        for number in range(40):
            hub.drop(str(number))
        while heard:
            event = await anext(stream)
            assert event.ByteSize() < BATCH_BYTES * 1.1
            heard -= set(event.connections)
        await stream.aclose()

    run(main())


def test_marks_are_told_once():
    """Another state is an UPDATE; the same again, or one of an unknown connection, is nothing."""

    async def main():
        hub = Hub("h")
        original = connection("x")
        hub.put(original, "")
        assert hub.mark("x", State.DOWN)
        assert not hub.mark("x", State.DOWN)
        assert not hub.mark("nobody", State.DOWN)
        assert original.state == State.UP
        assert hub.get("x").state == State.DOWN
        assert hub.get("nobody") is None

    run(main())


@pytest.mark.parametrize(
    ("peer", "shown"),
    [
        (Peer(spiffe_id="owner"), True),
        (Peer(spiffe_id="other"), False),
        (Peer(), False),
        (Peer(in_process=True), True),
    ],
)
def test_tokens_are_for_the_owner(peer, shown):
    """Others see the path without tokens; what is stored keeps them."""

    async def main():
        hub = Hub("h")
        hub.put(connection("x"), "owner")
        stream = hub.subscribe(peer, ALL)
        event = await anext(stream)
        assert bool(event.connections["x"].path.path_segments[0].token) is shown
        assert hub.get("x").path.path_segments[0].token == "t"
        await stream.aclose()

    run(main())


def test_the_end_of_the_hub_ends_the_streams():
    """Waiting readers are told, with what waited for them before."""

    async def main():
        hub = Hub("h")
        stream = hub.subscribe(Peer(), ALL)
        await anext(stream)
        asyncio.get_running_loop().call_later(5, hub.end)
        with pytest.raises(Unavailable, match="h is stopping"):
            await anext(stream)
        assert hub.subscribers == 0

    run(main())
