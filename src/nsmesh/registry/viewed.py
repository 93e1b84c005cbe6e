"""What every store answers from its view in memory; where it keeps what is put there is its own matter."""

from __future__ import annotations

from typing import Generic

from nsmesh.registry.catalogue import Catalogue, CatalogueWatch
from nsmesh.registry.query import E, Kind


class Viewed(Generic[E]):
    """The verbs of a :class:`nsmesh.registry.store.Store` that change nothing."""

    def __init__(self, catalogue: Catalogue[E]) -> None:
        self._catalogue = catalogue

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

    async def get(self, name: str) -> E | None:
        """Return the entry of that name, or None."""
        return self._catalogue.get(name)

    async def list(self, template: E) -> list[E]:
        """Return all entries that ``template`` means."""
        return self._catalogue.list(template)

    def watch(self, template: E) -> CatalogueWatch[E]:
        """Watch what ``template`` means; the caller closes it."""
        return self._catalogue.watch(template)
