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
    interface without any address, route, rule or neighbour: for transparent functions. ``led``: one that is
    not numbered, and that a driver leads elsewhere; whether it has IPv6 is that driver's affair.
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
    led: bool = False


class TunnelPort:
    """One end of a wire: the way to another node; the kinds are in :mod:`nsmesh.model.tunnels`.

    ``local`` and ``remote`` are the underlay's addresses of this node and of the other. ``mtu`` is the
    largest that fits through, 0 leaves it open. ``mac`` is what the other node was told of this node's
    interface, ``peer_mac`` what it has told of its own; empty: nothing. The interface itself has them (see
    :mod:`nsmesh.model.wiring`): for the tunnel they make no difference.
    """

    __slots__ = ()

    local: str
    remote: str
    mtu: int
    mac: str
    peer_mac: str

    @property
    def frames(self) -> bool:
        """Whether the interface has frames, a MAC and neighbours; else there are bare packets."""
        return True

    @property
    def place(self) -> tuple[object, ...]:
        """What no two wires of one node may have in common; empty where they may share all of it."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class MemifPort:
    """One end of a wire: a memif socket, by which a user-space process shares its rings.

    ``socket`` is a path that can be opened, or a name behind ``@`` in the abstract namespace of the network
    namespace ``netns`` (a path; empty for a socket that is a file). ``listens``: the user of this end
    listens there and whoever wires connects; else whoever wires listens. ``id`` is the interface's number
    on that socket. ``mtu`` 0 leaves it open.
    """

    socket: str
    netns: str = ""
    listens: bool = False
    id: int = 0
    mtu: int = 0
    mac: str = ""

    @property
    def abstract(self) -> bool:
        """Whether the socket is a name and no file."""
        return self.socket.startswith("@")


@dataclass(frozen=True, slots=True)
class VhostUserPort:
    """One end of a wire: a vhost-user socket, by which a virtual machine shares its memory.

    ``socket`` is a path that can be opened. ``listens``: the user (the machine's monitor) listens there and
    whoever wires connects, again and again; else whoever wires listens. ``queues`` is the number of pairs.
    """

    socket: str
    listens: bool = True
    queues: int = 1
    mtu: int = 0
    mac: str = ""


SocketPort = MemifPort | VhostUserPort
"""Ends of a wire in user space: frames go through shared memory that a socket agrees on."""

Port = KernelPort | TunnelPort | MemifPort | VhostUserPort
"""What a wire can end in."""


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
        a, b = self.a, self.b
        if isinstance(a, KernelPort):
            return (a, b) if isinstance(b, KernelPort) else (a,)
        return (b,) if isinstance(b, KernelPort) else ()

    @property
    def sockets(self) -> tuple[SocketPort, ...]:
        """The ends of the wire that are sockets of processes on this node, in the order a, b."""
        return tuple(port for port in (self.a, self.b) if isinstance(port, MemifPort | VhostUserPort))

    @property
    def tunnel(self) -> TunnelPort | None:
        """The end that leads to another node, or None where both are here."""
        a, b = self.a, self.b
        return a if isinstance(a, TunnelPort) else b if isinstance(b, TunnelPort) else None
