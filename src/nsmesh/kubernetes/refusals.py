"""Requests that were refused, as long as somebody asks: how many are shown, how often, and how long."""

from __future__ import annotations

from nsmesh.kubernetes.wires import Place, Wire

KEPT = 60.0
"""Seconds after the last try for which a refusal is shown."""
CALM = 5.0
"""Seconds for which a refusal that is shown is not changed: clients try each fifth of a second."""
MOST, MOST_OF_ONE = 512, 16
"""Refusals that are shown, of all clients of a node and of one identity: each is an object in the cluster."""


class Refusals:
    """Decides what of them is worth an object."""

    def __init__(self) -> None:
        self._shown: dict[Place, tuple[str, float, float]] = {}

    def take(self, wire: Wire, who: str, now: float) -> bool:
        """Take one more; say whether it is to be written. ``who``: the identity that asked."""
        known = self._shown.get(wire.place)
        if known is None and not self._has_room(who):
            return False
        written = known[2] if known is not None else float("-inf")
        is_due = now - written >= CALM
        self._shown[wire.place] = who, now, now if is_due else written
        return is_due

    def _has_room(self, who: str) -> bool:
        own = sum(1 for owner, _, _ in self._shown.values() if owner == who)
        return len(self._shown) < MOST and own < MOST_OF_ONE

    def over(self, now: float) -> list[Place]:
        """Return, and forget, those that nobody has asked for in a while."""
        found = [place for place, (_, last, _) in self._shown.items() if now - last >= KEPT]
        for place in found:
            del self._shown[place]
        return found
