"""Network services that a registry process lost with its state are registered again.

Endpoints register themselves again; network services are registered once, when they are applied, and nobody
but the mesh knows their matches.
"""

from __future__ import annotations

import asyncio

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import NetworkService
from nsmesh.standalone.entries import Entries
from nsmesh.standalone.mesh import Mesh

log = structlog.get_logger()

UNIT = "registry"
WINDOW = 30.0
"""Seconds after the start of a new registry within which what is missing is taken for lost."""


class LostServices:
    """Keeps what the registry has, and gives it back to one that was started anew and has it no more.

    What this mesh itself unregisters is not given back. A registry that is a part of the daemon is not
    watched: it ends with the daemon.
    """

    def __init__(self, mesh: Mesh, entries: Entries) -> None:
        self._mesh = mesh
        self._entries = entries
        self._held: dict[str, NetworkService] = {}
        self._starts = 0
        self._until = 0.0

    async def watch(self) -> None:
        """Look at each news, for as long as the mesh lives."""
        with self._mesh.news.listen() as changed:
            while True:
                await self._look()
                await changed.wait()
                changed.clear()

    async def _look(self) -> None:
        unit, now = self._mesh.supervisor.units.get(UNIT), self._mesh.scope.clock.monotonic()
        if unit is None:
            return
        if unit.restarts != self._starts:
            self._starts, self._until = unit.restarts, now + WINDOW
        services = self._mesh.model.services
        if now >= self._until:
            # a registry that has just ended still has here what it told
            self._held = {name: copy_of(service) for name, service in services.items()}
            return
        dropped = self._entries.dropped
        for name in [name for name in self._held if name not in services and name not in dropped]:
            await self._register(name)

    async def _register(self, name: str) -> None:
        try:
            await self._entries.register(self._held[name])
        except MeshError as error:
            log.warning("a network service that was lost is not back yet", service=name, error=str(error))
            await asyncio.sleep(1)
            self._mesh.news.tell()
            return
        log.warning("a network service that the registry had lost is registered again", service=name)
        text = f"service {name} is registered again: the registry had lost it"
        self._mesh.events.add("service", text)
