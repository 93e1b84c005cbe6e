"""Who stands in front of us: each has one connection here under one id of his own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsmesh.core.call import Peer
from nsmesh.model.messages import Connection

if TYPE_CHECKING:  # what it is is no part of this
    from nsmesh.core.living import Living

Asker = tuple[bool, str, str, str]
"""Who asks, under what name and id of his own: whether of our process, SPIFFE ID, segment's name and id."""


def asker_of(peer: Peer, connection: Connection) -> Asker | None:
    """Return who stands in front of us in the path, None where we are the first."""
    index = connection.path.index
    if not 1 <= index < len(connection.path.path_segments):
        return None
    segment = connection.path.path_segments[index - 1]
    return peer.in_process, peer.spiffe_id, segment.name, segment.id


def is_anothers(peer: Peer, connection: Connection, life: Living) -> bool:
    """Whether ``peer`` brings a living connection that somebody else requested, from another place.

    That is who took the place of the hop in front of us, under another name, id and identity: a manager or
    forwarder that was started anew. The first hop is not replaced: it is the client.
    """
    index = connection.path.index
    if index < 2 or peer.in_process or _whose(life.peer) == _whose(peer):
        return False
    known = life.connection
    if known is None or known.path.index != index:
        return False
    return known.path.path_segments[index - 1].id != connection.path.path_segments[index - 1].id


def _whose(peer: Peer) -> tuple[bool, str]:
    return peer.in_process, peer.spiffe_id


class Askers:
    """Ids of our connections, by who asked for them."""

    def __init__(self) -> None:
        self._ids: dict[Asker, str] = {}
        self._askers: dict[str, Asker] = {}

    def __len__(self) -> int:
        """Return how many are known."""
        return len(self._ids)

    def put(self, peer: Peer, connection: Connection) -> None:
        """Remember who asks for a connection; the last one counts."""
        asker = asker_of(peer, connection)
        if asker is not None:
            self._ids[asker] = connection.id
            self._askers[connection.id] = asker

    def drop(self, connection_id: str) -> None:
        """Forget a connection."""
        asker = self._askers.pop(connection_id, None)
        if asker is not None and self._ids.get(asker) == connection_id:
            del self._ids[asker]

    def of(self, peer: Peer, connection: Connection) -> str:
        """Return the id of what whoever comes with ``connection`` has here; empty where there is nothing."""
        if not self._ids:
            return ""
        asker = asker_of(peer, connection)
        return self._ids.get(asker, "") if asker is not None else ""
