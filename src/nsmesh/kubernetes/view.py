"""What is known of one collection: the objects that the server told of, as entries of a catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic

import structlog

from nsmesh.core.clock import Clock
from nsmesh.core.errors import Invalid
from nsmesh.kubernetes.client import Object
from nsmesh.kubernetes.codec import Resource
from nsmesh.registry.catalogue import Catalogue
from nsmesh.registry.query import E

log = structlog.get_logger()


@dataclass(slots=True)
class Held(Generic[E]):
    """One object as it was last seen."""

    namespace: str
    name: str
    """The object's; the entry's may be another."""
    uid: str
    version: int
    entry: E | None
    """None where it means nothing."""
    seen: float
    """When this form was first seen, in monotonic seconds of our own."""
    seen_wall: float
    unconfirmed: bool
    """Whether only our own write told of it; the watch did not yet."""


def key_of(namespace: str, name: str) -> str:
    """Return the key of an object; no entry's name has a slash."""
    return f"{namespace}/{name}"


class View(Generic[E]):
    """A sink of a reflector that keeps a catalogue true.

    What our own writes brought is there at once, and not told again when the watch brings it. An object that
    means nothing (edited by hand) is named in the log and left out; it harms nobody else.
    """

    def __init__(self, resource: Resource[E], catalogue: Catalogue[E], clock: Clock) -> None:
        self.resource = resource
        self.catalogue = catalogue
        self._clock = clock
        self._held: dict[str, Held[E]] = {}
        self._removed: set[str] = set()
        """Objects (by uid) that we deleted and whose end the watch has not told yet."""

    def __iter__(self) -> Iterator[Held[E]]:
        return iter(tuple(self._held.values()))

    def held(self, namespace: str, name: str) -> Held[E] | None:
        """Return what is known of an object."""
        return self._held.get(key_of(namespace, name))

    @property
    def unreadable(self) -> int:
        """How many objects mean nothing."""
        return sum(held.entry is None for held in self._held.values())

    def changed(self, item: Object) -> None:
        """Take an object from the watch."""
        self._take(item, ours=False)

    def written(self, item: Object) -> None:
        """Take an object as the server returned it to our own write."""
        self._take(item, ours=True)

    def deleted(self, item: Object) -> None:
        """Take an object's end from the watch."""
        metadata = item["metadata"]
        self._removed.discard(metadata["uid"])
        held = self._held.get(key_of(metadata["namespace"], metadata["name"]))
        if held is not None and held.uid == metadata["uid"]:
            self._drop(held)

    def removed(self, held: Held[E]) -> None:
        """Take an object's end from our own deletion."""
        now = self._held.get(key_of(held.namespace, held.name))
        if now is not None and now.uid == held.uid:  # else the watch was faster
            self._removed.add(held.uid)
            self._drop(now)

    def replace(self, items: list[Object], version: str) -> None:
        """Take a whole list: what it lacks is gone, unless we wrote it after the list was made."""
        listed = {key_of(item["metadata"]["namespace"], item["metadata"]["name"]) for item in items}
        self._removed &= {item["metadata"]["uid"] for item in items}
        for key, held in tuple(self._held.items()):
            if key not in listed and not (held.unconfirmed and held.version > int(version)):
                self._drop(held)
        for item in items:
            self._take(item, ours=False, listed=True)

    def _take(self, item: Object, *, ours: bool, listed: bool = False) -> None:
        metadata = item["metadata"]
        if metadata["uid"] in self._removed:
            return
        key = key_of(metadata["namespace"], metadata["name"])
        held, version = self._held.get(key), int(metadata["resourceVersion"])
        if held is not None:
            if held.version == version:
                held.unconfirmed = held.unconfirmed and ours
                return
            # a list may be older than what we know only when the server lost its memory
            if version < held.version and (held.unconfirmed or not listed):
                return
        entry = self._entry(item)
        self._held[key] = Held(
            metadata["namespace"],
            metadata["name"],
            metadata["uid"],
            version,
            entry,
            self._clock.monotonic(),
            self._clock.now(),
            unconfirmed=ours,
        )
        if entry is None:
            self.catalogue.remove(key)
        else:
            self.catalogue.put(entry, key)

    def _entry(self, item: Object) -> E | None:
        try:
            return self.resource.entry(item)
        except Invalid as error:
            log.warning("left out of the registry", why=error.what, remedy=error.remedy)
            return None

    def _drop(self, held: Held[E]) -> None:
        key = key_of(held.namespace, held.name)
        del self._held[key]
        self.catalogue.remove(key)
