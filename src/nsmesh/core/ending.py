"""How this process ends: for good, or for a successor that goes on with what it has.

One flag of the process, as a signal is for all of it. Who ends for a successor leaves its registrations:
the successor has the same name and address, and in between nobody should be told that there is none.
"""

from __future__ import annotations

_STATE = {"successor": False}


def hand_over() -> None:
    """Note that a successor goes on with what this process has."""
    _STATE["successor"] = True


def hands_over() -> bool:
    """Say whether a successor goes on with what this process has."""
    return _STATE["successor"]
