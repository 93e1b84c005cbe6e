"""What is in the way of a wire, as errors that say what: whoever asked for it may choose another."""

from __future__ import annotations

from nsmesh.core.errors import Conflict


class InterfaceTaken(Conflict):
    """An interface of that name exists in that namespace and is another's.

    ``owner``: the wire of the same driver that it is an end of, empty for a stranger's.
    """

    def __init__(self, what: str, *, netns: str, name: str, remedy: str = "", owner: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.netns = netns
        self.name = name
        self.owner = owner
