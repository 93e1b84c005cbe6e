"""The audit of a running program: what its elements hold for connections that do not live.

Every element that keeps something by connection id, outside of ``call.state``, says so in
:meth:`nsmesh.core.element.Element.keeps`. All of it is made and given back within a life of the chain's
``Begin``, so whatever is held for another id was forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from nsmesh.core.begin import Begin
from nsmesh.core.element import Chain, running_chains
from nsmesh.core.unclosed import Unclosed


@dataclass(frozen=True, slots=True)
class Orphan:
    """What ``element`` of ``chain`` holds for ``connection``, which does not live there."""

    chain: str
    element: str
    connection: str

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"{self.chain}: {self.element} holds something for connection {self.connection}, which is gone"


def orphans(chains: Iterable[Chain] | None = None) -> list[Orphan]:
    """Return what is held without a connection in ``chains``; None: in all that run in this process.

    True at any time between two steps of the event loop, also while Requests are under way. A chain without
    a ``Begin`` holds nothing by connection.
    """
    found: list[Orphan] = []
    for chain in running_chains() if chains is None else chains:
        begins = (element for element in chain.elements if isinstance(element, Begin))
        found += [Orphan(chain.name, kind, key) for begin in begins for kind, key in begin.orphans()]
    return found


@runtime_checkable
class Asking(Protocol):
    """An element that asks next hops."""

    unclosed: Unclosed


@dataclass(frozen=True, slots=True)
class Owed:
    """What ``chain`` has asked of the next hop ``at`` and has not been told to be closed there."""

    chain: str
    connection: str
    at: str


def unclosed(chains: Iterable[Chain] | None = None) -> list[Owed]:
    """Return what next hops may still have of ours in ``chains``; None: in all that run in this process.

    Nothing at rest, while all next hops can be reached.
    """
    return [
        Owed(chain.name, connection, at)
        for chain in (running_chains() if chains is None else chains)
        for element in chain.elements
        if isinstance(element, Asking)
        for at, connection in element.unclosed.owed
    ]
