"""Register and Unregister: the path header, ownership, expiration."""

from __future__ import annotations

import json
import time

from nsmesh.conformance.actor import Actor, Peer, status_of
from nsmesh.conformance.case import Group, expect
from nsmesh.conformance.world import World
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.model.registry_path import PATH_HEADER
from nsmesh.model.times import seconds, timestamp

GROUP = Group("registration")


def _entry(world: World, name: str, expires: float | None = None) -> NetworkServiceEndpoint:
    entry = NetworkServiceEndpoint(
        name=world.name(name), network_service_names=[world.name("s")], url="tcp://127.0.0.1:1"
    )
    if expires is not None:
        entry.expiration_time.CopyFrom(timestamp(expires))
    return entry


async def _with_path(world: World, value: str | None) -> str:
    registry = await world.registry()
    entry = _entry(world, "path")
    headers = registry.headers() if value is None else (*registry.headers(), (PATH_HEADER, value))
    status, _ = await status_of(registry.register(entry, headers))
    if status == "OK":
        await registry.unregister(entry)
    return status


@GROUP.case("path-absent", "3.4", "PERMISSION_DENIED without a path header")
async def absent(world: World) -> str:
    """Register without the header."""
    status = await _with_path(world, None)
    return expect(status == "PERMISSION_DENIED", status)


@GROUP.case("path-empty-object", "3.4", "OK for a path of {}")
async def empty_object(world: World) -> str:
    """Register with an empty path."""
    status = await _with_path(world, "{}")
    return expect(status == "OK", status)


@GROUP.case("path-null-list", "3.4", 'OK for {"Index":0,"PathSegments":null}')
async def null_list(world: World) -> str:
    """Register as Go does."""
    status = await _with_path(world, '{"Index":0,"PathSegments":null}')
    return expect(status == "OK", status)


@GROUP.case("path-no-json", "3.4", "PERMISSION_DENIED for a path that is no JSON")
async def no_json(world: World) -> str:
    """Register with a broken header."""
    status = await _with_path(world, "nonsense")
    return expect(status == "PERMISSION_DENIED", status)


@GROUP.case(
    "path-returned", "3.4", "the answer's header has index 0 and two tokens: the caller's, the server's"
)
async def returned(world: World) -> str:
    """Look at the initial metadata of an answer."""
    registry = await world.registry()
    entry = _entry(world, "returned")
    stored, metadata = await registry.register(entry)
    await registry.unregister(entry)
    if PATH_HEADER not in metadata:
        return expect(False, "no path header")  # noqa: FBT003 - what was expected does not hold
    path = {key.lower(): value for key, value in json.loads(metadata[PATH_HEADER]).items()}
    tokens = [segment.get("token", "") for segment in path.get("pathsegments") or []]
    seen = f"index {path.get('index', 0)}, {len(tokens)} tokens, path_ids {list(stored.path_ids)}"
    ids = [world.tester.identity.spiffe_id, registry.spiffe_id]
    right = path.get("index", 0) == 0 and len(tokens) == 2 and all(tokens) and list(stored.path_ids) == ids
    return expect(right, seen)


@GROUP.case("path-through-nsmgr", "3.4", "three tokens and path_ids: caller, manager, registry")
async def through_manager(world: World) -> str:
    """Register through the manager."""
    nsmgr = await world.nsmgr()
    entry = _entry(world, "through")
    stored, metadata = await nsmgr.register(entry)
    await nsmgr.unregister(entry)
    path = {key.lower(): value for key, value in json.loads(metadata.get(PATH_HEADER, "{}")).items()}
    count = len(path.get("pathsegments") or [])
    right = count == 3 and len(stored.path_ids) == 3 and stored.path_ids[0] == world.tester.identity.spiffe_id
    return expect(right, f"{count} tokens, {len(stored.path_ids)} path_ids")


@GROUP.case("token-absent", "3.4", "PERMISSION_DENIED without nsm-client-token")
async def without_token(world: World) -> str:
    """Register without a token."""
    registry = await world.registry()
    status, _ = await status_of(registry.register(_entry(world, "bare"), ((PATH_HEADER, "{}"),)))
    return expect(status == "PERMISSION_DENIED", status)


async def _owned(owner: Peer, thief: Peer, entry: NetworkServiceEndpoint | NetworkService) -> str:
    await owner.register(entry)
    stolen, _ = await status_of(thief.register(entry))
    removed, _ = await status_of(thief.unregister(entry))
    await owner.unregister(entry)
    free, _ = await status_of(thief.register(entry))
    if free == "OK":
        await thief.unregister(entry)
    denied = "PERMISSION_DENIED"
    return expect(
        (stolen, removed, free) == (denied, denied, "OK"),
        f"other's register {stolen}, other's unregister {removed}, after unregister {free}",
    )


async def _pair(world: World) -> tuple[Peer, Peer]:
    other: Actor = world.stranger()
    return await world.registry(), await world.registry(other)


@GROUP.case("endpoint-owner", "3.4", "an endpoint's name is its owner's until it is unregistered")
async def endpoint_owner(world: World) -> str:
    """Take somebody's endpoint over."""
    return await _owned(*await _pair(world), _entry(world, "owned"))


@GROUP.case("service-owner", "3.4", "a service's name is its owner's until it is unregistered")
async def service_owner(world: World) -> str:
    """Take somebody's service over."""
    return await _owned(*await _pair(world), NetworkService(name=world.name("owned-service")))


async def _life(world: World, entry: NetworkServiceEndpoint) -> float:
    registry = await world.registry()
    now = time.time()
    stored, _ = await registry.register(entry)
    await registry.unregister(entry)
    return seconds(stored.expiration_time) - now


@GROUP.case("expiration-given", "4.6", "an endpoint without expiration gets 60 s or less")
async def expiration_given(world: World) -> str:
    """Register without an expiration."""
    left = await _life(world, _entry(world, "forever"))
    return expect(30 < left <= 61, f"{left:.0f} s")


@GROUP.case("expiration-lowered", "4.6", "an expiration of an hour is lowered to 60 s or less")
async def expiration_lowered(world: World) -> str:
    """Ask for a long life."""
    left = await _life(world, _entry(world, "long", time.time() + 3600))
    return expect(30 < left <= 61, f"{left:.0f} s")


@GROUP.case("expiration-echoed", "4.6", "an expiration of 30 s is echoed")
async def expiration_echoed(world: World) -> str:
    """Ask for a short life."""
    left = await _life(world, _entry(world, "short", time.time() + 30))
    return expect(28 < left < 31, f"{left:.0f} s")


@GROUP.case("registration-time", "4.6", "initial_registration_time is set, and stays at a second Register")
async def registration_time(world: World) -> str:
    """Register twice."""
    registry = await world.registry()
    entry = _entry(world, "twice")
    first, _ = await registry.register(entry)
    second, _ = await registry.register(entry)
    await registry.unregister(entry)
    a, b = seconds(first.initial_registration_time), seconds(second.initial_registration_time)
    return expect(a > 0 and a == b, f"set {'yes' if a else 'no'}, moved by {b - a:g} s")


@GROUP.case(
    "url-replaced", "4.3", "through a manager the registry stores the manager's URL, the caller's comes back"
)
async def url_replaced(world: World) -> str:
    """Compare what the caller and the registry see."""
    nsmgr, registry = await world.nsmgr(), await world.registry()
    entry = _entry(world, "local")
    entry.url = f"unix://{world.folder}/none.sock"
    stored, _ = await nsmgr.register(entry)
    found = await registry.find(NetworkServiceEndpoint(name=entry.name))
    await nsmgr.unregister(entry)
    gone = await registry.find(NetworkServiceEndpoint(name=entry.name))
    there = found[0].url if found else "nothing"
    seen = f"caller {stored.url == entry.url}, registry has another {there != entry.url}, gone {not gone}"
    return expect(stored.url == entry.url and there not in {entry.url, "nothing"} and not gone, seen)
