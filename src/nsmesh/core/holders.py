"""Who holds which interface: one connection each, and the same client may have back what it has lost."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from nsmesh.core.life import Life
from nsmesh.model.messages import Connection

Place = tuple[Hashable, str]
"""A network namespace and an interface name in it."""


@dataclass(slots=True)
class Holder:
    """A connection with the interfaces that it holds, and whose it is: the first segment's name and id."""

    id: str
    origin: tuple[str, str]
    life: Life | None
    places: set[Place] = field(default_factory=set)


class Holders:
    """The holders of a forwarder's interfaces. Who holds nothing is not remembered."""

    def __init__(self) -> None:
        self._holders: dict[str, Holder] = {}
        self._held: dict[Place, Holder] = {}

    @property
    def ids(self) -> set[str]:
        """Ids of those who hold something, or are about to."""
        return {*self._holders, *(holder.id for holder in self._held.values())}

    @property
    def places(self) -> set[Place]:
        """The interfaces that are held."""
        return set(self._held)

    def of(self, connection: Connection, life: Life | None) -> Holder:
        """Return the holder of a connection, a new one where it holds nothing yet."""
        holder = self._holders.get(connection.id)
        if holder is None:
            holder = self._holders[connection.id] = Holder(connection.id, origin_of(connection), None)
        holder.life = life
        return holder

    def other(self, place: Place, holder: Holder) -> Holder | None:
        """Return who else holds an interface, None where nobody does."""
        other = self._held.get(place)
        return other if other is not holder else None

    def take(self, place: Place, holder: Holder) -> None:
        """Have an interface held."""
        self._held[place] = holder
        holder.places.add(place)

    def forget(self, connection_id: str) -> None:
        """Let go of all that a connection holds."""
        holder = self._holders.get(connection_id)
        if holder is not None:
            self.let_go(holder, keep=set())

    def let_go(self, holder: Holder, *, keep: set[Place]) -> None:
        """Let go of all but ``keep``."""
        for place in holder.places - keep:
            holder.places.discard(place)
            if self._held.get(place) is holder:
                del self._held[place]
        if not holder.places and self._holders.get(holder.id) is holder:
            del self._holders[holder.id]


def origin_of(connection: Connection) -> tuple[str, str]:
    """Return whose a connection is: name and id of its path's first segment."""
    segments = connection.path.path_segments
    return (segments[0].name, segments[0].id) if segments else ("", connection.id)


def has_lost(connection: Connection, holder: Holder, other: Holder) -> bool:
    """Return whether ``other`` is what the same client has lost, and not a part of this very path."""
    if other.life is None or other.origin != holder.origin:
        return False
    return all(segment.id != other.id for segment in connection.path.path_segments)
