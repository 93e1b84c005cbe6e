"""Asking a registry: services and endpoints by template, and what to say when a name is not there."""

from __future__ import annotations

from collections.abc import Callable

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


MOST_KEPT = 1024
"""Answers that a :class:`Lookup` keeps."""


def _unknown() -> int | None:
    return None


class Lookup:
    """Questions to a registry of this process, whose answers are used again as long as nothing changes there.

    ``version`` returns a number that changes with every change, or None where the registry cannot be sure of
    what it has: then each question is asked. Names of other domains are always asked for. What is returned
    is shared: it must not be changed.
    """

    def __init__(self, registry: Handler, version: Callable[[], int | None] = _unknown) -> None:
        self._registry = registry
        self._version = version
        self._at: int | None = None
        self._services: dict[tuple[str, str], NetworkService] = {}
        self._endpoints: dict[tuple[str, str, str], list[NetworkServiceEndpoint]] = {}

    async def service(self, call: Call, name: str, payload: str) -> NetworkService:
        """Return what :func:`find_service` does; raises the same."""
        at = self._look()
        known = self._services.get((name, payload))
        if known is None:
            known = await find_service(self._registry, call, name, payload)
            if self._is_kept(name, at):
                self._services[name, payload] = known
        return known

    async def endpoints(
        self, call: Call, service: str, now: float, *, url: str = ""
    ) -> list[NetworkServiceEndpoint]:
        """Return the endpoints that offer ``service``, with ``url`` as a part of theirs.

        ``now``: the time of the wall; what is over by then is not answered from what is kept.
        """
        return await self._found(call, now, service=service, url=url)

    async def named(self, call: Call, name: str, now: float) -> list[NetworkServiceEndpoint]:
        """Return the endpoint of that name, and others that the registry takes for it."""
        return await self._found(call, now, name=name)

    async def _found(
        self, call: Call, now: float, *, name: str = "", service: str = "", url: str = ""
    ) -> list[NetworkServiceEndpoint]:
        at = self._look()
        known = self._endpoints.get((name, service, url))
        if known is None or any(has_expired(entry, now) for entry in known):
            services = [service] if service else []
            template = NetworkServiceEndpoint(name=name, network_service_names=services, url=url)
            known = await find_endpoints(self._registry, call, template)
            if known and self._is_kept(name or service, at):
                self._endpoints[name, service, url] = known
        return known

    def _look(self) -> int | None:
        """Return the registry's version; drop what is kept of another one."""
        version = self._version()
        if version is None or version != self._at:
            self._services.clear()
            self._endpoints.clear()
            self._at = version
        return version

    def _is_kept(self, name: str, asked_at: int | None) -> bool:
        """Whether an answer may be used again: nothing has changed while it was on its way."""
        if asked_at is None or "@" in name or len(self._services) + len(self._endpoints) >= MOST_KEPT:
            return False
        return self._look() == asked_at


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
