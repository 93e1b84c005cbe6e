"""MonitorConnections: the first event at once, then what happens, as long as somebody listens."""

from __future__ import annotations

import time

from nsmesh.conformance.actor import following
from nsmesh.conformance.case import Group, expect
from nsmesh.conformance.provider import providing
from nsmesh.conformance.world import World
from nsmesh.model.messages import ConnectionEvent, ConnectionEventType, MonitorScopeSelector, PathSegment

GROUP = Group("monitor")

_INITIAL = ConnectionEventType.INITIAL_STATE_TRANSFER


def _of(connection_id: str) -> MonitorScopeSelector:
    return MonitorScopeSelector(path_segments=[PathSegment(id=connection_id)])


@GROUP.case("initial-empty", "3.5", "INITIAL_STATE_TRANSFER at once, also where nothing matches; then open")
async def initial(world: World) -> str:
    """Watch what is not there."""
    nsmgr = await world.nsmgr()
    begun = time.monotonic()
    async with following(nsmgr.monitor(_of(world.name("nobody")))) as events:
        first = await events.next(2.0)
        took = time.monotonic() - begun
        if first is None:
            return expect(False, f"nothing in 2 s ({events.ended or 'open'})")  # noqa: FBT003 - it does not hold
        await events.next(0.5)
        kind = ConnectionEventType.Name(first.type)
        right = first.type == _INITIAL and not first.connections and took < 1 and not events.ended
        return expect(right, f"{kind} with {len(first.connections)}, {events.ended or 'open'}")


def _kinds(event: ConnectionEvent | None) -> str:
    return "nothing" if event is None else ConnectionEventType.Name(event.type)


@GROUP.case("life", "3.5", "INITIAL_STATE_TRANSFER, then UPDATE at a Request and DELETE at its Close")
async def life(world: World) -> str:
    """Watch a connection through its life."""
    async with providing(world) as provider:
        nsmgr = await world.nsmgr()
        request = world.wanted("life", provider.service)
        async with following(nsmgr.monitor(_of(request.connection.id))) as events:
            seen = [_kinds(await events.next(2.0))]
            answer = await provider.ask(request)
            update = await events.until(lambda event: event.type == ConnectionEventType.UPDATE, 3.0)
            seen.append(_kinds(update))
            await nsmgr.close(answer)
            delete = await events.until(lambda event: event.type == ConnectionEventType.DELETE, 3.0)
            seen.append(_kinds(delete))
        return expect(seen == ["INITIAL_STATE_TRANSFER", "UPDATE", "DELETE"], ", ".join(seen))


@GROUP.case("shape", "3.5", "key and id are the manager's segment's, index 1, with path and mechanism")
async def shape(world: World) -> str:
    """Look at a connection in an event."""
    async with providing(world) as provider:
        nsmgr = await world.nsmgr()
        request = world.wanted("shape", provider.service)
        answer = await provider.ask(request)
        async with following(nsmgr.monitor(_of(request.connection.id))) as events:
            event = await events.next(2.0)
        await nsmgr.close(answer)
        if event is None or len(event.connections) != 1:
            return expect(False, f"{_kinds(event)} with no connection")  # noqa: FBT003 - it does not hold
        ((key, connection),) = event.connections.items()
        own = answer.path.path_segments[1].id
        facts = {
            "key": key == own,
            "id": connection.id == own,
            "index": connection.path.index == 1,
            "path": len(connection.path.path_segments) == 4,
            "mechanism": connection.HasField("mechanism"),
        }
        wrong = [name for name, right in facts.items() if not right]
        return expect(not wrong, f"wrong: {', '.join(wrong)}" if wrong else "all as expected")


@GROUP.case(
    "tokens-private", "11", "another identity does not see the tokens of a connection (Go shows them)"
)
async def privacy(world: World) -> str:
    """Watch somebody else's connection."""
    other = await world.nsmgr(world.stranger())
    async with providing(world) as provider:
        request = world.wanted("private", provider.service)
        answer = await provider.ask(request)
        async with following(other.monitor(_of(request.connection.id))) as events:
            event = await events.next(2.0)
        await (await world.nsmgr()).close(answer)
        found = list(event.connections.values()) if event else []
        tokens = sum(bool(segment.token) for one in found for segment in one.path.path_segments)
        return expect(not tokens, f"{len(found)} connections, {tokens} tokens")
