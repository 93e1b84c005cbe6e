"""Descriptors beside messages: who is at the other end of a unix socket can be sent some, and has sent some.

Nobody has this over tcp. Roles of one process need it not: a path means the same to both.
"""

from __future__ import annotations

from typing import Protocol

from nsmesh.core.call import Key
from nsmesh.core.element import Handler


class Passing(Protocol):
    """The other end of one unix socket."""

    def send(self, path: str) -> str:
        """Send a descriptor of the file at ``path``, links followed, with the next message.

        Returns the ``inode://`` URL by which the message names it. Raises NotFound, Unauthorized, Exhausted
        or Unavailable.
        """
        ...

    async def take(self, dev: int, ino: int, deadline: float | None) -> int:
        """Return a descriptor that the other end has sent, or sends until ``deadline`` (loop time).

        The caller closes it. Raises TimedOut or Exhausted.
        """
        ...

    def expected(self, dev: int, ino: int) -> None:
        """Hear that a descriptor was not sent unasked, though nobody takes it: it is here already."""
        ...


PASSING: Key[Passing] = Key("passing")
"""In ``call.values`` of a server half: whoever calls, where that is over a unix socket."""


def passing_at(handler: Handler | None) -> Passing | None:
    """Return the other end that a client half has reached, where that is over a unix socket."""
    found: Passing | None = getattr(handler, "passing", None)
    return found
