"""What fits through the underlay to another node, where that is less than this node's own link says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

UNDERLAY = "underlay"
"""Path segment metric of a forwarder: that the way to another node is narrower than its link says."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The largest IP packet, in bytes, that passes to another node, and what this node's link says."""

    peer: str
    path: int
    link: int

    @property
    def lacking(self) -> int:
        """How many bytes fewer pass than the link says; 0 where it is right, or nobody knows."""
        return max(self.link - self.path, 0)

    def __str__(self) -> str:
        return f"{self.path} of {self.link} bytes to {self.peer}"


class Paths(Protocol):
    """Finds out what passes to other nodes."""

    async def towards(self, peer: str) -> Fit:
        """Return what fits to the node at an address. Raises MeshError where this node has no underlay."""
        ...
