"""The port to the datapath: desired wires in, what exists out. Drivers are idempotent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol


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


Port = KernelPort
"""What a wire can end in; other kinds join by union as their mechanisms come."""


@dataclass(frozen=True, slots=True)
class CrossConnect:
    """One wire as it shall be. ``id`` is the connection's id at its forwarder and names the owner."""

    id: str
    a: Port
    b: Port
    payload: str = "ETHERNET"


@dataclass(frozen=True, slots=True)
class Existing:
    """One interface that the driver finds in the kernel and that carries an owner's mark."""

    id: str
    netns: str
    name: str
    index: int
    up: bool


@dataclass(frozen=True, slots=True)
class Applied:
    """What an ``apply`` did: ``created``, ``changed`` or ``unchanged``; names and MACs of both ends."""

    outcome: str
    a_mac: str = ""
    b_mac: str = ""
    details: tuple[str, ...] = field(default=())


class Datapath(Protocol):
    """A driver. All methods raise :class:`nsmesh.core.errors.MeshError` with what, where and what to do."""

    name: str

    async def apply(self, wire: CrossConnect) -> Applied:
        """Make the kernel as ``wire`` says. A failed apply of a new wire leaves nothing behind."""
        ...

    async def remove(self, wire_id: str) -> None:
        """Take a wire away; one that is not there is gone already."""
        ...

    async def has(self) -> list[Existing]:
        """Say what exists and is marked as this driver's own, in the namespaces that it has worked in."""
        ...

    async def sweep(self, owned: Iterable[str]) -> list[Existing]:
        """Remove what is marked as the driver's own and belongs to no id of ``owned``; return it."""
        ...

    async def aclose(self) -> None:
        """Finish deletions that are under way and release what the driver holds; wires stay."""
        ...
