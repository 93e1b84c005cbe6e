"""What a mesh needs to know of being on several hosts, whichever of them this one is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nsmesh.api import join_pb2
from nsmesh.security.spiffe import Leaf
from nsmesh.standalone.joining.place import Place


class Hosts(Protocol):
    """The hosts of a mesh, as this one sees them."""

    @property
    def place(self) -> Place:
        """This host."""
        ...

    @property
    def first(self) -> str:
        """Name of the first host's node; that has the CA, the registry and the network services."""
        ...

    @property
    def joined(self) -> bool:
        """Whether this host joined another one's mesh."""
        ...

    def nodes(self) -> Sequence[join_pb2.Node]:
        """Return all nodes, the first host's first."""
        ...

    def refuses(self, leaf: Leaf) -> str:
        """Say why a peer with a good certificate is refused, or nothing."""
        ...
