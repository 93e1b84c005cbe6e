"""One making of documents: what is still to be made, what failed, and who hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.model.manifest import Endpoint, Workload
from nsmesh.standalone.documents import Local, key
from nsmesh.standalone.events import Event
from nsmesh.standalone.mesh import Mesh

Tell = Callable[[Event], None]
Unmake = Callable[[str, str], Awaitable[None]]
"""Takes away what there is of a document, by its kind and name."""
Make = Callable[..., Awaitable[None]]
"""Makes a document of some kind, for a run."""
Among = Callable[..., bool]


@dataclass(frozen=True, slots=True)
class Failure:
    """One document that could not be made, or (``stays``) is not complete yet and is worked on."""

    item: Local
    error: MeshError
    stays: bool = False


class NotWired(Unavailable):
    """A workload has not got all its wires yet; the mesh goes on trying."""


class Run:
    """One call of ``make``: what is still to be made, what failed, and who hears of it."""

    def __init__(self, mesh: Mesh, unmake: Unmake, items: list[Local], tell: Tell, *, wait: bool) -> None:
        self._mesh = mesh
        self._unmake = unmake
        self.items = items
        self.tell = tell
        self.wait = wait
        self.failures: list[Failure] = []

    def say(self, kind: str, text: str, *, connection: str = "") -> None:
        """Tell whoever asked, and note it among the events."""
        self.tell(self._mesh.events.add(kind, text, connection=connection))

    async def spaces(self) -> None:
        """Make the network namespaces of all endpoints and workloads."""
        for item in list(self.items):
            if isinstance(item, Endpoint | Workload):
                await self.guard(item, self._space(item))

    async def _space(self, item: Endpoint | Workload) -> None:
        await self._mesh.spaces.make(item.name, item.netns, getattr(item, "pid", 0))

    async def each(self, kind: type, make: Make, among: Among = lambda _item: True) -> None:
        """Make the documents of a kind, those for which ``among`` holds, one after the other."""
        for item in self._chosen(kind, among):
            await self.guard(item, make(item, self))

    async def together(self, kind: type, make: Make, among: Among = lambda _item: True) -> None:
        """Make them all at once."""
        await asyncio.gather(*(self.guard(item, make(item, self)) for item in self._chosen(kind, among)))

    def _chosen(self, kind: type, among: Among) -> list[Local]:
        return [item for item in self.items if isinstance(item, kind) and among(item)]

    async def guard(self, item: Local, work: Awaitable[None]) -> None:
        """Do work for an item; where it fails, take away what was begun and note it."""
        try:
            await work
        except NotWired as error:
            self.failures.append(Failure(item, error, stays=True))
        except BaseException as error:
            self.items.remove(item)
            try:
                await self._unmake(*key(item))
            except MeshError as second:
                error.add_note(f"and undoing it failed: {second}")
            if not isinstance(error, MeshError):
                raise
            self.failures.append(Failure(item, error))
