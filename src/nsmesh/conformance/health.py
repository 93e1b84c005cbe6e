"""Health: the names under which each role is SERVING."""

from __future__ import annotations

from nsmesh.api import health_pb2
from nsmesh.conformance.actor import Peer, status_of
from nsmesh.conformance.case import Group, expect
from nsmesh.conformance.provider import providing
from nsmesh.conformance.world import World
from nsmesh.model import methods

GROUP = Group("health")

_CONNECTIONS = (methods.NETWORK_SERVICE, methods.MONITOR_CONNECTION)
_REGISTRIES = (methods.SERVICE_REGISTRY, methods.ENDPOINT_REGISTRY)
_SERVING = health_pb2.HealthCheckResponse.SERVING


async def _check(world: World, role: str, names: tuple[str, ...]) -> str:
    server = await world.server(role)
    return await _names(server, names)


async def _own(world: World, role: str, socket: str) -> str:
    """Ask a role that was given, or in a scratch mesh one of our own."""
    if not world.scratch:
        return await _check(world, role, _CONNECTIONS)
    async with providing(world):
        server = await world.tester.peer(f"unix://{world.folder}/{socket}.sock")
        return await _names(server, _CONNECTIONS)


async def _names(server: Peer, names: tuple[str, ...]) -> str:
    wrong = []
    for name in ("", *names):
        asked = health_pb2.HealthCheckRequest(service=name)
        answer, _ = await server.call(methods.HEALTH_CHECK, asked, health_pb2.HealthCheckResponse)
        if answer.status != _SERVING:
            wrong.append(name)
    return expect(not wrong, f"not SERVING: {wrong}" if wrong else f"SERVING: {len(names) + 1} names")


@GROUP.case("nsmgr", "1.2", "SERVING for the empty name and all four services")
async def nsmgr(world: World) -> str:
    """Ask the manager."""
    return await _check(world, "nsmgr", (*_CONNECTIONS, *_REGISTRIES))


@GROUP.case("registry", "1.2", "SERVING for the empty name and both registries")
async def registry(world: World) -> str:
    """Ask the registry."""
    return await _check(world, "registry", _REGISTRIES)


@GROUP.case("forwarder", "1.2", "SERVING for the empty name, NetworkService and MonitorConnection")
async def forwarder(world: World) -> str:
    """Ask the forwarder."""
    return await _own(world, "forwarder", "forwarder")


@GROUP.case("endpoint", "1.2", "SERVING for the empty name, NetworkService and MonitorConnection")
async def endpoint(world: World) -> str:
    """Ask the endpoint."""
    return await _own(world, "endpoint", "nse")


@GROUP.case("unknown-name", "1.2", "NOT_FOUND for a name that nobody serves")
async def unknown(world: World) -> str:
    """Ask the manager for something else."""
    server = await world.nsmgr()
    asked = health_pb2.HealthCheckRequest(service="no.such.Service")
    status, _ = await status_of(server.call(methods.HEALTH_CHECK, asked, health_pb2.HealthCheckResponse))
    return expect(status == "NOT_FOUND", status)
