"""The port to whoever sends echoes to other nodes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Echoes(Protocol):
    """Echoes to the addresses of other nodes, numbered from 1 to 65535; none of this waits."""

    def open(self) -> None:
        """Begin; raises OSError where that cannot be."""
        ...

    def close(self) -> None:
        """End."""
        ...

    def reaches(self, node: str) -> bool:
        """Whether an address can be asked at all."""
        ...

    def send(self, node: str, sequence: int) -> None:
        """Send one."""
        ...

    def heard(self) -> Iterable[tuple[str, int, float]]:
        """Return node, number and seconds of each answer that has come since the last time."""
        ...
