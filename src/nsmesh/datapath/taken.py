"""What is in the way of a wire, as errors that say what: whoever asked for it may choose another."""

from __future__ import annotations

from nsmesh.core.errors import Conflict
from nsmesh.datapath.rtread import Link


class InterfaceTaken(Conflict):
    """An interface of that name exists in that namespace and is another's.

    ``owner``: the wire of the same driver that it is an end of, empty for a stranger's.
    """

    def __init__(self, what: str, *, netns: str, name: str, remedy: str = "", owner: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.netns = netns
        self.name = name
        self.owner = owner


def name_conflict(netns: str, link: Link, *, ours: bool = False) -> InterfaceTaken:
    """Return the error for a name that somebody else's interface has; ``ours``: of the same driver."""
    owner = f"belongs to connection {link.owner}" if link.owner else "is not part of the mesh"
    return InterfaceTaken(
        f"an interface {link.name} exists in {netns} already and {owner}",
        netns=netns,
        name=link.name,
        remedy=f"ask for another interface name than {link.name}, or remove that interface",
        owner=link.owner if ours else "",
    )
