"""What is watched of one connection, to heal it: its stream, its probes, and how fast it answers."""

from __future__ import annotations

import asyncio
import math

from nsmesh.core.follow import Following
from nsmesh.core.life import Life
from nsmesh.core.missing import MISSING_ALIVE, Missing
from nsmesh.model.messages import Connection

QUICK = 0.1
"""Most seconds for one look at a wire that the next hop has told as down: time for five questions."""
QUICKEST = 0.04
"""Least seconds for it: time for four questions."""
UNKNOWN = 0.06
"""Seconds for it where no look has been answered yet."""
SLOWER = 8
"""How many times as long as the longest of the last looks it may take."""


class HealWatch:
    """What a Heal knows of one connection.

    ``asking``: an attempt of ours is under way in the chain. ``down``: what was heard last. ``missing``:
    for how long nobody finds the endpoint. ``took``: seconds of the longest of the last looks that were
    answered, infinite before the first. The connection is kept in its wire form, which takes a quarter
    of the memory of the message.
    """

    __slots__ = ("_packed", "asking", "down", "following", "healing", "life", "missing", "probing", "took")

    def __init__(self, life: Life, connection: Connection) -> None:
        self.life = life
        self.connection = connection
        self.following: Following | None = None
        self.probing: asyncio.Task[None] | None = None
        self.healing: asyncio.Task[None] | None = None
        self.asking = False
        self.down = False
        self.missing = Missing(MISSING_ALIVE)
        self.took = math.inf

    @property
    def brief(self) -> float:
        """Seconds in which it answers, if it does."""
        return min(max(SLOWER * self.took, QUICKEST), QUICK) if self.took < math.inf else UNKNOWN

    @property
    def connection(self) -> Connection:
        """A copy of what was granted last."""
        return Connection.FromString(self._packed)

    @connection.setter
    def connection(self, connection: Connection) -> None:
        self._packed = connection.SerializeToString()

    def rest(self) -> None:
        """Watch no more; an attempt to heal goes on."""
        if self.following is not None:
            self.following.stop()
            self.following = None
        if self.probing is not None:
            self.probing.cancel()
            self.probing = None

    def calm(self) -> None:
        """Give up healing, unless it is just asking: then it ends by itself."""
        if self.healing is not None and not self.asking:
            self.healing.cancel()
            self.healing = None
