"""Request and Close at a manager: the path, tokens along it, ids, Close."""

from __future__ import annotations

from itertools import pairwise

from nsmesh.conformance.actor import status_of
from nsmesh.conformance.case import Group, expect
from nsmesh.conformance.provider import providing
from nsmesh.conformance.world import World
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkServiceRequest, State
from nsmesh.security import jws

GROUP = Group("request")


@GROUP.case(
    "four-segments", "3.1", "4 segments in the order client, manager, forwarder, endpoint; index 0, own id"
)
async def four_segments(world: World) -> str:
    """Request a wire through the manager."""
    async with providing(world) as provider:
        request = world.wanted("four", provider.service)
        answer = await provider.ask(request)
        await (await world.nsmgr()).close(answer)
        names = [segment.name for segment in answer.path.path_segments]
        order = [
            names[0] == world.name("nsc"),
            *(name in names[2:] for name in (provider.forwarder, *provider.seen)),
        ]
        seen = (
            f"{len(names)} segments, index {answer.path.index}, id kept {answer.id == request.connection.id}"
        )
        return expect(len(names) == 4 and all(order) and not answer.path.index and "kept True" in seen, seen)


@GROUP.case("aud-chain", "3.2", "each token is addressed to the next hop, and the last one to its caller")
async def aud_chain(world: World) -> str:
    """Read the tokens of an answer."""
    async with providing(world) as provider:
        answer = await provider.ask(world.wanted("chain", provider.service))
        await (await world.nsmgr()).close(answer)
        claims = [jws.parse(segment.token).claims for segment in answer.path.path_segments]
        hops = list(pairwise(claims))
        broken = [
            number for number, (one, following) in enumerate(hops) if following["sub"] not in one["aud"]
        ]
        last = claims[-1]["aud"] == [claims[-2]["sub"]]
        return expect(not broken and last, f"broken at {broken}" if broken else f"chained; last one {last}")


@GROUP.case(
    "refresh-keeps-ids", "3.1", "a refresh keeps every id, the endpoint and the addresses; new tokens"
)
async def refresh(world: World) -> str:
    """Send an answer back."""
    async with providing(world) as provider:
        nsmgr = await world.nsmgr()
        request = world.wanted("refresh", provider.service)
        first = await provider.ask(request)
        again = NetworkServiceRequest(connection=first, mechanism_preferences=request.mechanism_preferences)
        second = await nsmgr.request(again)
        await nsmgr.close(second)
        ids = [s.id for s in first.path.path_segments] == [s.id for s in second.path.path_segments]
        name = first.network_service_endpoint_name == second.network_service_endpoint_name
        addresses = first.context.ip_context.src_ip_addrs == second.context.ip_context.src_ip_addrs
        return expect(ids and name and addresses, f"ids {ids}, endpoint {name}, addresses {addresses}")


@GROUP.case("state-up", "3.6", "the state of an answer is UP, also after RESELECT_REQUESTED")
async def reselect(world: World) -> str:
    """Reselect a connection."""
    async with providing(world) as provider:
        nsmgr = await world.nsmgr()
        request = world.wanted("reselect", provider.service)
        again = copy_of(request)
        again.connection.CopyFrom(await provider.ask(request))
        again.connection.state = State.RESELECT_REQUESTED
        again.connection.ClearField("mechanism")
        again.connection.network_service_endpoint_name = ""
        answer = await nsmgr.request(again)
        await nsmgr.close(answer)
        return expect(answer.state == State.UP, f"state {State.Name(answer.state)}")


@GROUP.case("payload", "5.2", "the payload of an answer is the service's")
async def payload(world: World) -> str:
    """Request without a payload."""
    async with providing(world) as provider:
        answer = await provider.ask(world.wanted("payload", provider.service))
        await (await world.nsmgr()).close(answer)
        return expect(answer.payload == "IP", f"payload {answer.payload or 'empty'}")


@GROUP.case("context-made", "4.3", "the endpoint sees context and ip_context")
async def context(world: World) -> str:
    """Request without a context."""
    async with providing(world) as provider:
        request = world.wanted("context", provider.service)
        request.connection.ClearField("context")
        answer = await provider.ask(request)
        await (await world.nsmgr()).close(answer)
        (seen,) = provider.seen.values()
        there = seen.requests[-1].connection.context.HasField("ip_context")
        return expect(there, f"ip_context {there}")


@GROUP.case("close", "3.6", "a Close reaches the endpoint")
async def close(world: World) -> str:
    """Close what was requested."""
    async with providing(world) as provider:
        answer = await provider.ask(world.wanted("close", provider.service))
        await (await world.nsmgr()).close(answer)
        (seen,) = provider.seen.values()
        return expect(len(seen.closed) == 1, f"{len(seen.closed)} Close at the endpoint")


@GROUP.case("close-unknown", "3.6", "OK for a Close of an id that is not known")
async def close_unknown(world: World) -> str:
    """Close what never was."""
    nsmgr = await world.nsmgr()
    status, _ = await status_of(nsmgr.close(world.wanted("never", "none").connection))
    return expect(status == "OK", status)


async def _bent(world: World, connection: Connection) -> tuple[str, str]:
    request = NetworkServiceRequest(connection=connection)
    request.mechanism_preferences.add(cls="LOCAL", type="NOOP")
    return await status_of((await world.nsmgr()).request(request))


@GROUP.case("id-mismatch", "3.1", "an error where the id is not that of the own segment")
async def id_mismatch(world: World) -> str:
    """Send an id that is not the segment's."""
    connection = world.wanted("bent", "none").connection
    connection.id = world.name("another")
    status, text = await _bent(world, connection)
    return expect(status != "OK" and "not found" not in text, f"{status}: {text[:80]}")


@GROUP.case("index-too-large", "3.1", "an error where the index is beyond the segments")
async def index_too_large(world: World) -> str:
    """Send an index of 5 with one segment."""
    connection = world.wanted("far", "none").connection
    connection.path.index = 5
    status, text = await _bent(world, connection)
    return expect(status != "OK" and "not found" not in text, f"{status}: {text[:80]}")


@GROUP.case("no-path", "3.1", "PERMISSION_DENIED for a first Request without a path")
async def no_path(world: World) -> str:
    """Send no segment."""
    connection = world.wanted("pathless", "none").connection
    connection.ClearField("path")
    status, _ = await _bent(world, connection)
    return expect(status == "PERMISSION_DENIED", status)


@GROUP.case("unknown-service", "5.1", "'... is not found' for a service that nobody registered")
async def unknown_service(world: World) -> str:
    """Request what is not there."""
    status, text = await status_of((await world.nsmgr()).request(world.wanted("ghost", world.name("ghost"))))
    return expect(status in {"UNKNOWN", "NOT_FOUND"} and "not found" in text, f"{status}: {text[:80]}")


@GROUP.case("unknown-endpoint", "5.1", "'... is not found' for an endpoint that nobody registered")
async def unknown_endpoint(world: World) -> str:
    """Name an endpoint that is not there, of a service that is."""
    async with providing(world) as provider:
        nsmgr = await world.nsmgr()
        await nsmgr.close(await provider.ask(world.wanted("settled", provider.service)))
        nobody = world.wanted("nobody", provider.service, network_service_endpoint_name=world.name("nobody"))
        status, text = await status_of(nsmgr.request(nobody))
        return expect(status in {"UNKNOWN", "NOT_FOUND"} and "not found" in text, f"{status}: {text[:160]}")


@GROUP.case("by-name-alone", "5.1", "an endpoint that is named is asked, whatever the service's payload is")
async def by_name_alone(world: World) -> str:
    """Name the endpoint, with a service that has a payload, and without any payload in the Request."""
    async with providing(world) as provider:
        (name,) = provider.seen
        settled = await provider.ask(world.wanted("settled", provider.service))
        await (await world.nsmgr()).close(settled)
        request = world.wanted("named", provider.service, network_service_endpoint_name=name)
        answer = await provider.ask(request)
        await (await world.nsmgr()).close(answer)
        return expect(
            answer.network_service_endpoint_name == name,
            f"endpoint {answer.network_service_endpoint_name}, payload {answer.payload or 'empty'}",
        )
