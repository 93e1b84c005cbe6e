"""Who takes the place of an interface gets its index and its MAC, so that nobody inside sees another one."""

from __future__ import annotations

from collections.abc import Iterable

from nsmesh.datapath.base import KernelPort
from nsmesh.datapath.places import Doors, Place

REMEMBERED = 16384
"""Interfaces that are remembered at most; those that were made first are forgotten first."""


class Heirs:
    """Index and MAC of each interface as it was last, by its namespace (path, and cookie) and name."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[int, int, bytes]] = {}

    def note(self, place: Place, port: KernelPort, index: int, mac: bytes) -> None:
        """Remember what an interface is."""
        self._known.pop((port.netns, port.name), None)
        self._known[port.netns, port.name] = place.cookie, index, mac
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    def of(self, place: Place, port: KernelPort) -> tuple[int, bytes]:
        """Return index and MAC of the interface that was there last, 0 and nothing where none is known.

        Another namespace that has got the same path has no part in it.
        """
        cookie, index, mac = self._known.get((port.netns, port.name), (0, 0, b""))
        return (index, mac) if cookie == place.cookie else (0, b"")

    def waiting(self, doors: Doors, ports: Iterable[KernelPort]) -> bool:
        """Whether the index of one of them is still in use: its deletion is under way."""
        found = ((port.netns, self._known.get((port.netns, port.name))) for port in ports)
        known = [(path, last[1]) for path, last in found if last is not None]
        return bool(known) and any(doors.names_at(known))
