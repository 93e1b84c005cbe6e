"""A wire as it shall be: two ports and what belongs on each. Mechanisms map to it, drivers apply it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Route:
    """A route through the wire: ``prefix`` in CIDR, ``via`` an IP or empty (link scope)."""

    prefix: str
    via: str = ""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour: IP and MAC, as text."""

    ip: str
    mac: str


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A policy rule and the routes of its own table (contract 2.5).

    ``source`` a CIDR or empty; ``protocol`` an IP protocol number or None; ports are inclusive ranges.
    """

    source: str = ""
    protocol: int | None = None
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelPort:
    """One end of a wire: an interface in somebody's network namespace.

    ``netns`` is a path that can be opened (``/run/netns/x``, ``/proc/7/ns/net``), ``mac`` may be empty (the
    driver chooses), ``addresses`` are CIDR, ``mtu`` 0 leaves the kernel's. ``numbered`` false leaves the
    interface without any address, route, rule or neighbour: for transparent functions.
    """

    netns: str
    name: str
    mac: str = ""
    mtu: int = 0
    addresses: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    rules: tuple[PolicyRule, ...] = ()
    numbered: bool = True


VXLAN_PORT = 4789
"""UDP port of VXLAN."""


@dataclass(frozen=True, slots=True)
class VxlanPort:
    """One end of a wire: the way to another node, frames in UDP over the underlay.

    ``local`` and ``remote`` are the underlay's addresses of this node and of the other, each with the UDP
    port on which it listens. ``mtu`` is the largest that fits through, 0 leaves it open. ``mac`` is what the
    other node was told of this node's interface, ``peer_mac`` what it has told of its own; empty: nothing.
    The interface itself has them (see :mod:`nsmesh.model.wiring`): for the tunnel they make no difference.
    """

    vni: int
    local: str
    remote: str
    local_port: int = VXLAN_PORT
    remote_port: int = VXLAN_PORT
    mtu: int = 0
    mac: str = field(default="", compare=False)
    peer_mac: str = field(default="", compare=False)


Port = KernelPort | VxlanPort
"""What a wire can end in; other kinds join by union as their mechanisms come."""


@dataclass(frozen=True, slots=True)
class CrossConnect:
    """One wire as it shall be. ``id`` is the connection's id at its forwarder and names the owner.

    ``formerly``: the id under which another forwarder, since replaced, made this very wire; empty for none.
    """

    id: str
    a: Port
    b: Port
    payload: str = "ETHERNET"
    formerly: str = field(default="", compare=False)

    @property
    def interfaces(self) -> tuple[KernelPort, ...]:
        """The ends of the wire that are interfaces on this node, in the order a, b."""
        return tuple(port for port in (self.a, self.b) if isinstance(port, KernelPort))

    @property
    def tunnel(self) -> VxlanPort | None:
        """The end that leads to another node, or None where both are here."""
        return next((port for port in (self.a, self.b) if isinstance(port, VxlanPort)), None)
