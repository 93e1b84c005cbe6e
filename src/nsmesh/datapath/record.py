"""What the driver ``linux`` remembers of a wire, and what follows from a wire's ends alone."""

from __future__ import annotations

from typing import NamedTuple

from nsmesh.core.errors import Invalid
from nsmesh.datapath import veth
from nsmesh.datapath.base import CrossConnect, KernelPort
from nsmesh.datapath.wirestate import EndState, desired_end


class Record(NamedTuple):
    """A wire as this driver last applied it: where its ends are and which interfaces they are."""

    wire: CrossConnect
    ends: tuple[tuple[str, int], ...]
    """Namespace and index of each interface on this node, in the order a, b."""
    macs: tuple[str, str]
    """Of a and b; empty where that end is on another node."""


def refuse_one_name(wire: CrossConnect) -> None:
    """Raise Invalid where both ends have one name, in a namespace that two paths lead to."""
    a, b = wire.interfaces
    if a.name == b.name:
        raise Invalid(
            f"both ends of connection {wire.id} are called {a.name} in one namespace",
            remedy="give the two ends different names, or different namespaces",
        )


def sides(wire: CrossConnect) -> str:
    """Return which of a and b are interfaces on this node."""
    return "".join(side for side, port in (("a", wire.a), ("b", wire.b)) if isinstance(port, KernelPort))


def born(port: KernelPort, index: int, mac: bytes = b"") -> EndState:
    """Return what a new interface shall be; one that asks for no MAC gets ``mac``, or one of ours."""
    state = desired_end(port, index)
    return state if state.mac else state._replace(mac=mac or veth.fresh_mac())
