"""What the mesh's registry is told on behalf of documents, and that it has arrived."""

from __future__ import annotations

from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Handler
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Entry, NetworkService, NetworkServiceEndpoint
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.telling import describe_match

CALL = 10.0
"""Seconds that one call to the registry may take."""
ARRIVE = 3.0
"""Seconds after which it is given up that the read model hears of what we did ourselves."""


class Entries:
    """Registers and unregisters through the manager; what is shown afterwards has the change in it."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self.dropped: set[str] = set()
        """Services that were unregistered here, and not registered since."""

    def has_service(self, service: NetworkService) -> bool:
        """Say whether the registry has exactly this service."""
        known = self._mesh.model.services.get(service.name)
        return known is not None and _bare(known) == _bare(service)

    def has_endpoint(self, endpoint: NetworkServiceEndpoint) -> bool:
        """Say whether the registry has this endpoint; when it ends, and who owns it, does not count."""
        known = self._mesh.model.endpoints.get(endpoint.name)
        return known is not None and _bare_endpoint(known) == _bare_endpoint(endpoint)

    async def register(self, entry: Entry) -> None:
        """Register, and wait until it is seen."""
        manager = self._manager(entry.name)
        await manager.register(Call(peer=Peer(in_process=True)).within(CALL), copy_of(entry))
        if isinstance(entry, NetworkService):
            self.dropped.discard(entry.name)
            await self._mesh.news.until(lambda: self.has_service(entry), ARRIVE)
        else:
            await self._mesh.news.until(lambda: entry.name in self._mesh.model.endpoints, ARRIVE)

    async def drop_service(self, name: str) -> None:
        """Unregister a service; one that is not known is unregistered already."""
        services = self._mesh.model.services
        if name not in services:
            return
        self.dropped.add(name)
        await self._unregister(NetworkService(name=name))
        await self._mesh.news.until(lambda: name not in services, ARRIVE)

    async def drop_endpoint(self, name: str) -> None:
        """Unregister an endpoint; one that is not known is unregistered already."""
        endpoints = self._mesh.model.endpoints
        if name in endpoints:
            await self._unregister(NetworkServiceEndpoint(name=name))
            await self._mesh.news.until(lambda: name not in endpoints, ARRIVE)

    async def _unregister(self, entry: Entry) -> None:
        manager = self._manager(entry.name)
        await manager.unregister(Call(peer=Peer(in_process=True)).within(CALL), entry)

    def _manager(self, name: str) -> Handler:
        """Return whom to ask about an entry: an endpoint's own manager alone can unregister it."""
        node = self._mesh.placement.of("endpoint", name)
        return self._mesh.managers[node.name] if node else next(iter(self._mesh.managers.values()))


def rules(service: NetworkService) -> str:
    """Return the matches of a service in words."""
    return "; ".join(describe_match(match) for match in service.matches) or "any endpoint"


def _bare(service: NetworkService) -> NetworkService:
    bare = copy_of(service)
    bare.payload = bare.payload or "IP"
    bare.ClearField("path_ids")
    return bare


def _bare_endpoint(endpoint: NetworkServiceEndpoint) -> NetworkServiceEndpoint:
    bare = copy_of(endpoint)
    for name in ("expiration_time", "initial_registration_time", "path_ids"):
        bare.ClearField(name)
    return bare
