"""The port of a registry's memory: what a store promises, whichever holds it.

What a store hands out is shared with it and must not be changed; whoever wants to change an entry copies it
first. What is put in is copied on the way in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, Self

from nsmesh.registry.query import E, Kind


@dataclass(frozen=True, slots=True)
class Change(Generic[E]):
    """One event of a watch: the entry as it now is, or as it was when it was removed."""

    entry: E
    deleted: bool = False


class Watch(Protocol[E]):
    """The present matches of a template, then every change to a match, in order, until closed.

    Between the two nothing is lost and nothing comes twice. An entry that is changed so that it no longer
    matches leaves without an event, as the wire contract has it. A reader that falls too far behind gets
    :class:`nsmesh.core.errors.Exhausted` and has to watch again.
    """

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> Change[E]: ...

    def close(self) -> None:
        """End the watch; a reader that waits sees its end. May be called any number of times."""
        ...


class Store(Protocol[E]):
    """Entries of one kind by name.

    All verbs raise :class:`nsmesh.core.errors.MeshError` when the store cannot do its work, and have then
    changed nothing.
    """

    @property
    def kind(self) -> Kind[E]:
        """What is stored."""
        ...

    def __len__(self) -> int:
        """Return how many entries there are."""
        ...

    async def put(self, entry: E) -> E:
        """Store ``entry`` in place of what has its name, tell the watchers, return it as stored."""
        ...

    async def get(self, name: str) -> E | None:
        """Return the entry of that name, or None."""
        ...

    async def remove(self, name: str) -> bool:
        """Remove the entry of that name and tell the watchers; False when there was none."""
        ...

    async def list(self, template: E) -> Iterable[E]:
        """Return all entries that ``template`` means, as they are now, in no promised order."""
        ...

    def watch(self, template: E) -> Watch[E]:
        """Watch what ``template`` means, from the moment of this call on; the caller closes it."""
        ...
