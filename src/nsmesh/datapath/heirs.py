"""Who takes the place of an interface gets its index and its MAC, so that nobody inside sees another one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from nsmesh.datapath.base import KernelPort
from nsmesh.datapath.places import Doors, Place

REMEMBERED = 16384
"""Interfaces that are remembered at most; those that were made first are forgotten first."""
K = TypeVar("K")
V = TypeVar("V")


class Heirs:
    """Index and MAC of each interface as it was last, by its namespace and name.

    A namespace is known by its cookie: paths to it change as descriptors come and go, and another one may
    get the path of one that is gone.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], tuple[int, bytes]] = {}
        self._latest: dict[tuple[str, str], int] = {}

    def note(self, place: Place, port: KernelPort, index: int, mac: bytes) -> None:
        """Remember what an interface is."""
        _put(self._known, (place.cookie, port.name), (index, mac))
        _put(self._latest, (port.netns, port.name), index)

    def of(self, place: Place, port: KernelPort) -> tuple[int, bytes]:
        """Return index and MAC of the interface that was there last, 0 and nothing where none is known."""
        return self._known.get((place.cookie, port.name), (0, b""))

    def waiting(self, doors: Doors, ports: Iterable[KernelPort]) -> bool:
        """Whether the index of one of them is still in use: its deletion is under way."""
        found = ((port.netns, self._latest.get((port.netns, port.name))) for port in ports)
        known = [(path, index) for path, index in found if index is not None]
        return bool(known) and any(doors.names_at(known))


def _put(known: dict[K, V], key: K, value: V) -> None:
    known.pop(key, None)
    known[key] = value
    if len(known) > REMEMBERED:
        del known[next(iter(known))]
