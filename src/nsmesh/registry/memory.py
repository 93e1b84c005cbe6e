"""A store that forgets with its process."""

from __future__ import annotations

from nsmesh.model.copying import copy_of
from nsmesh.registry.catalogue import BACKLOG, Catalogue
from nsmesh.registry.query import E, Kind
from nsmesh.registry.viewed import Viewed


class MemoryStore(Viewed[E]):
    """Entries of one kind in memory. See :class:`nsmesh.registry.store.Store` for its verbs."""

    def __init__(self, kind: Kind[E], *, backlog: int = BACKLOG) -> None:
        super().__init__(Catalogue(kind, backlog=backlog))

    async def put(self, entry: E) -> E:
        """Store a copy of ``entry`` and tell the watchers."""
        return self._catalogue.put(copy_of(entry))

    async def remove(self, name: str) -> bool:
        """Remove the entry of that name and tell the watchers."""
        return self._catalogue.remove(name) is not None
