"""What elements and a :class:`~nsmesh.core.begin.Begin` say to each other of a connection's life."""

from __future__ import annotations

from typing import Protocol

from nsmesh.core.call import Key
from nsmesh.model.messages import Connection

BUDGET = 15.0
"""Seconds that a re-request, a Close or an undo of our own may take."""
HASTE = 0.1
"""Seconds that next hops have to answer the Close of a Request that came to no end in time.

They have it then, and undo what they did; who was silent is hardly heard of any more.
"""


class Life(Protocol):
    """What an element may ask of the connection that it serves, later, from the background."""

    @property
    def up(self) -> bool:
        """Whether there is a connection: not before and not after its life."""
        ...

    @property
    def connection(self) -> Connection | None:
        """A copy of the connection as the chain last returned it, None where there is none.

        It is kept in its wire form and read anew each time: where only its being there matters, ask ``up``.
        """
        ...

    @property
    def asking(self) -> bool:
        """Whether a re-request is under way, or waits for its turn: nobody else need ask meanwhile."""
        ...

    def keep(self) -> None:
        """Have the journal know what ``call.state`` has by now; it does anyway once a Request was granted."""
        ...

    async def rerequest(self, *, reselect: bool = False) -> Connection | None:
        """Send the last connection through the chain again; None if it ended meanwhile.

        ``reselect`` ends it, here or at the next hop, and lets endpoint and mechanism be chosen anew. When
        that fails the life goes on without a connection: ask again, or close.
        """
        ...

    async def close(self) -> None:
        """Close the connection from here down; nothing happens if it ended meanwhile."""
        ...


LIFE: Key[Life] = Key("life")
OWN: Key[bool] = Key("own")
"""In ``call.values`` of re-requests, automatic Closes and undos: nobody asks, nobody need prove anything."""
DENIED: Key[bool] = Key("denied")
"""In ``call.state``, set by who refuses a caller before anything was closed or asked: all stays as it is."""
ASKED: Key[Connection] = Key("asked")
"""In ``call.values`` of a Close: the connection as the caller wrote it, for the tokens in it."""
REPLACED: Key[str] = Key("replaced")
"""In ``call.values`` of a server half: the id that a process of another name had in our place of the path."""
REACHED: Key[Connection] = Key("reached")
"""What the next hop answered, set as soon as it is known: the undo of a failed Request needs it."""
