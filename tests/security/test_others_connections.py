"""What belongs to somebody else: connections, their tokens, names. An insider gets none of it at any hop."""

import asyncio

import pytest
from attacks import claims, connection, headers, refusal, signed, spiffe

from nsmesh.core.errors import Unauthorized
from nsmesh.model import methods
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceEndpoint,
    State,
)
from nsmesh.rpc.client import Client

HOPS = {"nsmgr": 0, "forwarder": 1, "nse": 2}
"""Who serves a wire, and where the caller's segment stands in its path."""


async def first_event(client: Client, metadata=()):
    stream = client.stream(methods.MONITOR, MonitorScopeSelector().SerializeToString(), metadata=metadata)
    try:
        return ConnectionEvent.FromString(await anext(stream))
    finally:
        await stream.aclose()


async def victims_wire(mesh, name):
    """Return a victim, its connection as it knows it, and as each hop's monitor shows it to strangers."""
    victim = mesh.insider(name)
    wire = await victim.request(mesh.url("nsmgr"), connection(f"{name}-0", name))
    return victim, wire


def seen_at(wire, position):
    """Return the connection as the caller of a hop would send it, had he its ids."""
    stolen = Connection()
    stolen.CopyFrom(wire)
    stolen.path.index = position
    stolen.id = stolen.path.path_segments[position].id
    return stolen


def without_tokens(wire):
    bare = Connection()
    bare.CopyFrom(wire)
    for segment in bare.path.path_segments:
        segment.token = ""
    return bare


@pytest.mark.parametrize("hop", HOPS)
@pytest.mark.parametrize("verb", ["close", "refresh", "reselect"])
def test_a_wire_listens_to_its_owner_alone(mesh, mallory, hop, verb):
    """Close, refresh and reselect by somebody else are refused at every hop, whatever tokens he has."""

    async def main():
        victim, wire = await victims_wire(mesh, f"victim-{hop}-{verb}")
        for stolen in (seen_at(wire, HOPS[hop]), seen_at(without_tokens(wire), HOPS[hop])):
            mesh.mark()
            sent = headers(mallory.token(to=hop))
            if verb == "close":
                call = mallory.close(mesh.url(hop), stolen, sent)
            else:
                if verb == "reselect":
                    stolen.state = State.RESELECT_REQUESTED
                call = mallory.request(mesh.url(hop), stolen, sent)
            assert isinstance(await refusal(call), Unauthorized)
            line = mesh.heard("no sufficient privileges: .* refused hop", at=spiffe(hop))
            assert line["peer"] == spiffe(mallory.name)
            assert spiffe(mallory.name) in line["reason"] or "cannot be read" in line["reason"]
        again = await victim.request(mesh.url("nsmgr"), wire)
        assert again.path.path_segments[1:][0].id == wire.path.path_segments[1].id
        await victim.close(mesh.url("nsmgr"), again)

    asyncio.run(main())


def test_the_owner_is_named(mesh, mallory):
    """With a chain of good tokens of his own, a thief is told whose the connection is."""

    async def main():
        victim, wire = await victims_wire(mesh, "victim-named")
        stolen = seen_at(wire, 0)
        error = await refusal(mallory.close(mesh.url("nsmgr"), stolen))
        assert "connection_owner refused hop 0 (victim-named -> nsmgr)" in str(error)
        assert f"belongs to {spiffe('victim-named')}, not to {spiffe(mallory.name)}" in str(error)
        lying = headers(signed(mallory.key, claims("victim-named")))
        error = await refusal(mallory.close(mesh.url("nsmgr"), stolen, lying))
        assert "prev_token_subject" in str(error)
        await victim.close(mesh.url("nsmgr"), wire)

    asyncio.run(main())


@pytest.mark.parametrize("hop", HOPS)
def test_monitors_show_no_tokens_of_others(mesh, mallory, hop):
    """A stranger's monitor shows what there is, without a single token; the caller's own shows its own."""

    async def main():
        victim, wire = await victims_wire(mesh, f"victim-monitor-{hop}")
        identifier = wire.path.path_segments[HOPS[hop] + 1].id
        client = await mallory.dial(mesh.url(hop))
        try:
            for metadata in ((), headers(signed(mallory.key, claims(victim.name, to=hop)))):
                event = await first_event(client, metadata)
                assert identifier in event.connections
                shown = [one for two in event.connections.values() for one in two.path.path_segments]
                assert not any(segment.token for segment in shown)
        finally:
            await client.aclose(0)
        if hop == "nsmgr":
            client = await victim.dial(mesh.url(hop))
            own = (await first_event(client)).connections[identifier]
            assert all(segment.token for segment in own.path.path_segments)
            await client.aclose(0)
        await victim.close(mesh.url("nsmgr"), wire)

    asyncio.run(main())


NAMES = {
    "endpoint": (
        NetworkServiceEndpoint(name="nse", network_service_names=["service"], url="unix:///run/mine.sock"),
        (methods.ENDPOINT_REGISTER, methods.ENDPOINT_UNREGISTER),
    ),
    "service": (
        NetworkService(name="service", payload="ETHERNET"),
        (methods.SERVICE_REGISTER, methods.SERVICE_UNREGISTER),
    ),
}


@pytest.mark.parametrize("role", ["nsmgr", "registry"])
@pytest.mark.parametrize("kind", NAMES)
def test_a_name_belongs_to_who_registered_it(mesh, mallory, role, kind):
    """Register and Unregister of another's name are refused, also with a token that lies about who speaks."""
    entry, verbs = NAMES[kind]

    async def main():
        for verb in verbs:
            for sub, pattern in ((None, "belongs to"), ("nse", "prev_token_subject|belongs to")):
                mesh.mark()
                token = mallory.token(to=role) if sub is None else signed(mallory.key, claims(sub, to=role))
                sent = (*headers(token), ("path", "{}"))
                error = await refusal(mallory.call(mesh.url(role), verb, entry.SerializeToString(), sent))
                assert isinstance(error, Unauthorized)
                mesh.heard(pattern, peer=spiffe(mallory.name), at=spiffe(role), method=verb)
        victim = mesh.insider("after")
        wire = await victim.request(mesh.url("nsmgr"), connection("after-0", "after"))
        assert wire.network_service_endpoint_name == "nse"
        await victim.close(mesh.url("nsmgr"), wire)

    asyncio.run(main())
