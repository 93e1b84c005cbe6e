"""Asking a registry: services and endpoints by template, and what to say when a name is not there."""

from __future__ import annotations

from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Handler
from nsmesh.core.errors import NotFound
from nsmesh.core.peering import closing
from nsmesh.model.messages import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from nsmesh.model.names import nearest
from nsmesh.model.times import seconds


def _asking(call: Call) -> Call:
    """Return the call of a question of our own; it keeps only the caller's deadline."""
    return Call(deadline=call.deadline, peer=Peer(in_process=True))


async def find_services(registry: Handler, call: Call, template: NetworkService) -> list[NetworkService]:
    """Return the network services that match ``template``."""
    query = NetworkServiceQuery(network_service=template)
    async with closing(registry.find(_asking(call), query)) as found:
        return [
            item.network_service
            async for item in found
            if isinstance(item, NetworkServiceResponse) and not item.deleted
        ]


async def find_endpoints(
    registry: Handler, call: Call, template: NetworkServiceEndpoint
) -> list[NetworkServiceEndpoint]:
    """Return the endpoints that match ``template``."""
    query = NetworkServiceEndpointQuery(network_service_endpoint=template)
    async with closing(registry.find(_asking(call), query)) as found:
        return [
            item.network_service_endpoint
            async for item in found
            if isinstance(item, NetworkServiceEndpointResponse) and not item.deleted
        ]


async def find_service(registry: Handler, call: Call, name: str, payload: str) -> NetworkService:
    """Return the service of exactly this name, and payload where one is given.

    Raises NotFound with the nearest name, or the payload that the service does have, as remedy.
    """
    for service in await find_services(registry, call, NetworkService(name=name, payload=payload)):
        if service.name == name:
            return service
    raise await _missing(registry, call, name, payload)


async def _missing(registry: Handler, call: Call, name: str, payload: str) -> NotFound:
    what = f"network service {name} is not found"
    register = "register the NetworkService, or check the name in the request"
    if "@" in name:
        return NotFound(what, remedy="check the name and the domain behind '@'")
    known = {service.name: service for service in await find_services(registry, call, NetworkService())}
    if name in known:
        has = known[name].payload or "none"
        return NotFound(
            f"{what} with payload {payload}: it is registered with payload {has}", remedy=f"ask for {has}"
        )
    near = nearest(name, known)
    return NotFound(what, remedy=f"did you mean {near}?" if near else register)


def has_expired(endpoint: NetworkServiceEndpoint, now: float) -> bool:
    """Return whether an entry's time is over; one without an expiry lives."""
    if not endpoint.HasField("expiration_time"):
        return False
    return seconds(endpoint.expiration_time) <= now
