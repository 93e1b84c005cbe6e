"""A store that forgets with its process."""

from __future__ import annotations

from typing import Generic

from nsmesh.model.copying import copy_of
from nsmesh.registry.catalogue import BACKLOG, Catalogue, CatalogueWatch
from nsmesh.registry.query import E, Kind


class MemoryStore(Generic[E]):
    """Entries of one kind in memory. See :class:`nsmesh.registry.store.Store` for its verbs."""

    def __init__(self, kind: Kind[E], *, backlog: int = BACKLOG) -> None:
        self._catalogue = Catalogue(kind, backlog=backlog)

    @property
    def kind(self) -> Kind[E]:
        """What is stored."""
        return self._catalogue.kind

    def __len__(self) -> int:
        return len(self._catalogue)

    @property
    def watchers(self) -> int:
        """How many watches are open."""
        return self._catalogue.watchers

    async def put(self, entry: E) -> E:
        """Store a copy of ``entry`` and tell the watchers."""
        return self._catalogue.put(copy_of(entry))

    async def get(self, name: str) -> E | None:
        """Return the entry of that name, or None."""
        return self._catalogue.get(name)

    async def remove(self, name: str) -> bool:
        """Remove the entry of that name and tell the watchers."""
        return self._catalogue.remove(name) is not None

    async def list(self, template: E) -> list[E]:
        """Return all entries that ``template`` means."""
        return self._catalogue.list(template)

    def watch(self, template: E) -> CatalogueWatch[E]:
        """Watch what ``template`` means; the caller closes it."""
        return self._catalogue.watch(template)
