"""Which switches of a node take its wires of interfaces: a switch looks at all of its ports for each new one.

So none shall have too many, and the next one is started, with ports in advance, before it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping

from nsmesh.datapath.ovs_switch import Switch

WIRES = 64
"""Wires of a switch from which on another one gets those that come."""
RESERVE = 32
"""Wires for which there is room, else another switch is started."""

Counts = Mapping[Switch, int]
"""How many wires switches have; what is missing has none."""


class Spread:
    """``ready`` takes such wires, the first switch first; ``coming`` will."""

    def __init__(self, first: Switch) -> None:
        self.ready: list[Switch] = [first]
        self.coming: set[Switch] = set()

    def has(self, switch: Switch) -> bool:
        """Whether a switch takes such wires, or will."""
        return switch in self.ready or switch in self.coming

    def choose(self, counts: Counts) -> Switch:
        """Return the switch for one wire more: the first with room, or the one with the fewest.

        One that is not ready yet makes no wire wait.
        """
        roomy = next((switch for switch in self.ready if counts.get(switch, 0) < WIRES), None)
        return roomy or min(self.ready, key=lambda switch: counts.get(switch, 0))

    def is_short(self, counts: Counts, without: Switch | None = None) -> bool:
        """Whether there is little room, with what is coming and ``without`` one switch."""
        return self._room([*self.ready, *self.coming], counts, without) < RESERVE

    def _room(self, among: list[Switch], counts: Counts, without: Switch | None = None) -> int:
        return sum(max(0, WIRES - counts.get(switch, 0)) for switch in among if switch is not without)

    def limit(self, switches: list[Switch], counts: Counts) -> None:
        """Have switches make ports in advance for as many wires as they are to get."""
        for switch in switches:
            if switch in self.ready and not self._room(self.ready, counts, switch):
                switch.spares.limit = None
            else:
                switch.spares.limit = WIRES if self.has(switch) else 0

    def drop(self, switch: Switch) -> None:
        """Have a switch, which is not the first one, take no wires any more."""
        self.ready = [one for one in self.ready if one is not switch]
        self.coming.discard(switch)
