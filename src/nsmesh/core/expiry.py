"""How long what a call asks for may live at most, told to the elements further in."""

from __future__ import annotations

from nsmesh.core.call import Call, Key

EXPIRES: Key[float] = Key("expires")
"""Wall time in seconds at which the first of the call's credentials runs out."""


def limited(call: Call, expires: float) -> Call:
    """Return a copy of ``call`` whose :data:`EXPIRES` is ``expires``, or what it was when that is earlier."""
    known = call.get(EXPIRES)
    return call.put(EXPIRES, expires if known is None else min(known, expires))
