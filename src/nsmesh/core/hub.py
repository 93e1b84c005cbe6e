"""The hub of a monitor: what is known of each connection, and who wants to hear of it.

Nobody who is slow can fill the memory or hold anybody up: of each connection only the newest state waits
for a subscriber, and one that came and went unheard is not told at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from nsmesh.core.call import Peer
from nsmesh.core.errors import Unavailable
from nsmesh.model.messages import Connection, ConnectionEvent, ConnectionEventType, MonitorScopeSelector
from nsmesh.model.selector import selected

BATCH = 256
"""Most connections in one event."""
BATCH_BYTES = 2 << 20
"""Bytes of connections in one event, unless it is a single one: peers accept messages of 4 MiB."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A connection in its wire form, which takes a quarter of the memory of the message, and whose it is."""

    packed: bytes
    owner: str
    state: int

    def message(self) -> Connection:
        """Return it as a message."""
        return Connection.FromString(self.packed)


def _fitting(connections: Iterable[_Known]) -> int:
    """Return how many of ``connections`` go into one event, one at least."""
    count = total = 0
    for connection in connections:
        total += len(connection.packed)
        if count and (count == BATCH or total > BATCH_BYTES):
            break
        count += 1
    return count


class _Subscriber:
    """One stream: what waits for it, and which connections it has heard of."""

    __slots__ = ("deleted", "ended", "heard", "names", "peer", "selector", "updated", "wake")

    def __init__(self, peer: Peer, selector: MonitorScopeSelector) -> None:
        self.peer = peer
        self.selector = selector
        self.names = frozenset(segment.name for segment in selector.path_segments if segment.name)
        self.heard: set[str] = set()
        self.updated: dict[str, None] = {}
        self.deleted: dict[str, _Known] = {}
        self.wake = asyncio.Event()
        self.ended = False

    def update(self, connection: Connection, names: frozenset[str]) -> None:
        """Hear of a connection; ``names`` of its path tell most that are not asked for."""
        asked = connection.id in self.heard or (self.names <= names and selected(self.selector, connection))
        if asked:
            self.updated[connection.id] = None
            self.deleted.pop(connection.id, None)
            self.wake.set()

    def delete(self, connection_id: str, known: _Known) -> None:
        self.updated.pop(connection_id, None)
        if connection_id in self.heard:
            self.deleted[connection_id] = known
            self.wake.set()


class Hub:
    """Connections of one server half, by the id of its own path segment; subscribers of their changes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._known: dict[str, _Known] = {}
        self._subscribers: set[_Subscriber] = set()

    @property
    def ids(self) -> Collection[str]:
        """Ids of the connections that are known."""
        return self._known.keys()

    @property
    def subscribers(self) -> int:
        """How many streams are open."""
        return len(self._subscribers)

    def get(self, connection_id: str) -> Connection | None:
        """Return a copy of what is known of a connection."""
        known = self._known.get(connection_id)
        return known.message() if known else None

    def put(self, connection: Connection, owner: str) -> None:
        """Publish a connection as it now is.

        ``owner``: SPIFFE ID of who asked for it; others are not shown its tokens.
        """
        self._known[connection.id] = _Known(connection.SerializeToString(), owner, connection.state)
        if self._subscribers:
            names = frozenset([segment.name for segment in connection.path.path_segments])
            for subscriber in self._subscribers:
                subscriber.update(connection, names)

    def mark(self, connection_id: str, state: int) -> bool:
        """Publish a known connection in another state; returns whether it was known and in another one."""
        known = self._known.get(connection_id)
        if known is None or known.state == state:
            return False
        changed = known.message()
        changed.state = state  # type: ignore[assignment]
        self.put(changed, known.owner)
        return True

    def drop(self, connection_id: str) -> None:
        """Publish that a connection is gone; nothing happens for one that is not known."""
        known = self._known.pop(connection_id, None)
        if known is not None:
            for subscriber in self._subscribers:
                subscriber.delete(connection_id, known)

    def end(self) -> None:
        """End all streams."""
        for subscriber in self._subscribers:
            subscriber.ended = True
            subscriber.wake.set()

    async def subscribe(self, peer: Peer, selector: MonitorScopeSelector) -> AsyncIterator[ConnectionEvent]:
        """Yield what is there at once, also when it is nothing, then each change."""
        subscriber = _Subscriber(peer, selector)
        there = [key for key, known in self._known.items() if _is_selected(selector, known)]
        first = _fitting(self._known[key] for key in there)
        subscriber.updated.update(dict.fromkeys(there[first:]))
        self._subscribers.add(subscriber)
        try:
            yield self._event(subscriber, ConnectionEventType.INITIAL_STATE_TRANSFER, there[:first])
            while not subscriber.ended:
                for event in self._waiting(subscriber):
                    yield event
                if not subscriber.updated and not subscriber.deleted and not subscriber.ended:
                    subscriber.wake.clear()
                    await subscriber.wake.wait()
        finally:
            self._subscribers.discard(subscriber)
        raise Unavailable(f"{self.name} is stopping and ends its monitor streams")

    def _waiting(self, subscriber: _Subscriber) -> Iterator[ConnectionEvent]:
        if subscriber.deleted:
            deleted = list(islice(subscriber.deleted, _fitting(subscriber.deleted.values())))
            event = ConnectionEvent(type=ConnectionEventType.DELETE)
            for key in deleted:
                _show(subscriber.deleted.pop(key), event.connections[key], tokens=False)
                subscriber.heard.discard(key)
            yield event
        if subscriber.updated:
            count = _fitting(self._known[key] for key in subscriber.updated)
            updated = list(islice(subscriber.updated, count))
            for key in updated:
                del subscriber.updated[key]
            yield self._event(subscriber, ConnectionEventType.UPDATE, updated)

    def _event(self, subscriber: _Subscriber, kind: int, keys: Iterable[str]) -> ConnectionEvent:
        event = ConnectionEvent(type=kind)  # type: ignore[arg-type]
        for key in keys:
            known = self._known[key]
            shown = subscriber.peer.in_process or subscriber.peer.spiffe_id == known.owner
            _show(known, event.connections[key], tokens=shown)
            subscriber.heard.add(key)
        return event


def _is_selected(selector: MonitorScopeSelector, known: _Known) -> bool:
    """Return whether a connection is asked for; most that are not are told by what they do not contain."""
    wanted = (part for segment in selector.path_segments for part in (segment.name, segment.id))
    return all(part.encode() in known.packed for part in wanted) and selected(selector, known.message())


def _show(known: _Known, place: Connection, *, tokens: bool) -> None:
    """Put a connection into an event; its ``tokens`` are for who asked for it."""
    place.MergeFromString(known.packed)
    if not tokens:
        for segment in place.path.path_segments:
            segment.token = ""
