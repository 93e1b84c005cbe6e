"""Mechanisms: negotiation and a pure mapping to a port. They join as plug-ins, by entry point."""

from __future__ import annotations

from collections.abc import Callable

from nsmesh.core.errors import Invalid
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.model.names import nearest

GROUP = "nsmesh.mechanisms"
"""Entry point group: the name is the mechanism's type, the object makes a :class:`MechanismPlugin`."""


def available() -> list[str]:
    """Return the types of all mechanisms that are installed, sorted."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - clients name theirs, and start sooner without

    return sorted({entry.name for entry in entry_points(group=GROUP)})


def load(kind: str) -> Callable[..., MechanismPlugin]:
    """Return what makes the mechanism of type ``kind``; its arguments differ by mechanism and role.

    Raises Invalid when none of that type is installed.
    """
    from importlib.metadata import entry_points  # noqa: PLC0415 - likewise

    for entry in entry_points(group=GROUP, name=kind):
        factory: Callable[..., MechanismPlugin] = entry.load()
        return factory
    known = available()
    near = nearest(kind, known)
    raise Invalid(
        f"no mechanism {kind} is installed; there are {', '.join(known) or 'none'}",
        remedy=f"did you mean {near}?" if near else "install the package that brings it",
    )
