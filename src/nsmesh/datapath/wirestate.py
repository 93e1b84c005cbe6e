"""What a wire's ends shall be, in the kernel's terms: checked, normalised, comparable. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

from nsmesh.core.errors import Invalid, Refused
from nsmesh.datapath.base import CrossConnect, KernelPort, PolicyRule, Route
from nsmesh.datapath.packed import (
    Prefix,
    ip_text,
    mac_text,
    parse_ip,
    parse_mac,
    parse_network,
    parse_prefix,
)

ALIAS_PREFIX = "nsm:"
"""In front of the connection's id in an interface's alias (IFLA_IFALIAS): the owner's mark."""

ALIAS_LIMIT = 255
NAME_LIMIT = 15
IPV6_MTU = 1280
RT_TABLE_MAIN = 254
RULES_PER_END = 256
_TABLE_MARK = 0x8000_0000
INDEX_FIRST = 1 << 16
INDEX_LIMIT = 1 << 23
"""Interface indexes are chosen from this range, so that a table's number can hold an index and a rule."""

_NAME = re.compile(rf"[^/:%\0\s]{{1,{NAME_LIMIT}}}")
_RESERVED_NAMES = frozenset({".", "..", "all", "default"})


class RouteState(NamedTuple):
    """A route through the interface; ``via`` is empty for a route without gateway."""

    prefix: Prefix
    via: bytes
    table: int

    def __str__(self) -> str:
        gateway = f" via {ip_text(self.via)}" if self.via else ""
        table = "" if self.table == RT_TABLE_MAIN else f" table {self.table}"
        return f"route {self.prefix}{gateway}{table}"


class NeighbourState(NamedTuple):
    """A permanent neighbour entry."""

    ip: bytes
    mac: bytes

    def __str__(self) -> str:
        return f"neighbour {ip_text(self.ip)} at {mac_text(self.mac)}"


class RuleState(NamedTuple):
    """A policy rule that sends what it matches to ``table``."""

    family: int
    source: Prefix | None
    protocol: int | None
    source_ports: tuple[int, int] | None
    destination_ports: tuple[int, int] | None
    table: int

    def __str__(self) -> str:
        return f"policy rule from {self.source or 'all'} to table {self.table}"


Item: TypeAlias = Prefix | RouteState | NeighbourState | RuleState


class EndState(NamedTuple):
    """One end of a wire, as it is or as it shall be.

    In a wish an empty ``mac`` and ``mtu`` 0 mean: as it is. ``ipv6`` None: the kernel has no IPv6 there.
    ``addresses`` holds those of universe scope, in the order asked for (the kernel prefers the first as a
    source); ``narrower`` those of link or host scope that exist.
    """

    mac: bytes = b""
    mtu: int = 0
    up: bool = True
    ipv6: bool | None = True
    addresses: tuple[Prefix, ...] = ()
    narrower: frozenset[Prefix] = frozenset()
    routes: frozenset[RouteState] = frozenset()
    neighbours: frozenset[NeighbourState] = frozenset()
    rules: frozenset[RuleState] = frozenset()

    @property
    def has_room_for_ipv6(self) -> bool:
        """Whether the kernel has IPv6 on an interface of that MTU at all."""
        return not 0 < self.mtu < IPV6_MTU


def check_name(name: str) -> None:
    """Check an interface's name as the kernel would; raises Invalid."""
    if (
        not _NAME.fullmatch(name)
        or name in _RESERVED_NAMES
        or (not name.isascii() and len(name.encode(errors="surrogateescape")) > NAME_LIMIT)
    ):
        raise Invalid(
            f"{name!r} cannot name an interface",
            remedy=f"use 1 to {NAME_LIMIT} characters without '/', ':', '%' and spaces",
        )


def alias_of(wire_id: str) -> str:
    """Return the owner's mark for a wire; raises Invalid for an id that no mark can hold."""
    alias = ALIAS_PREFIX + wire_id
    if not wire_id or "\0" in wire_id or len(alias.encode()) > ALIAS_LIMIT:
        raise Invalid(
            f"the connection id {wire_id[:40]!r} cannot mark an interface",
            remedy=f"use an id of 1 to {ALIAS_LIMIT - len(ALIAS_PREFIX)} bytes",
        )
    return alias


def owner_of(alias: str) -> str:
    """Return the id that an alias names as its owner, or nothing."""
    return alias.removeprefix(ALIAS_PREFIX) if alias.startswith(ALIAS_PREFIX) else ""


def rule_table(index: int, ordinal: int) -> int:
    """Return the routing table of an interface's n-th rule: a restarted driver can tell whose it is."""
    return _TABLE_MARK | index << 8 | ordinal


def table_index(table: int) -> int:
    """Return the interface index that a rule's table was made for, or 0 for a table of somebody else."""
    return (table & ~_TABLE_MARK) >> 8 if table & _TABLE_MARK else 0


def check_wire(wire: CrossConnect) -> None:
    """Check what does not depend on the kernel; raises Invalid."""
    alias_of(wire.id)
    if wire.sockets:
        raise Refused(
            f"connection {wire.id} ends in the socket {wire.sockets[0].socket or 'of a user-space process'}, "
            "and this forwarder wires kernel interfaces alone",
            remedy="let both ends use MEMIF, or run a forwarder with a user-space switch on this node",
        )
    ports = wire.interfaces
    for port in ports:
        check_name(port.name)
        if not 0 <= port.mtu <= 65535:
            raise Invalid(f"an MTU of {port.mtu} is not possible", remedy="use 68 to 65535, or 0")
    if not ports:
        raise Invalid(
            f"neither end of connection {wire.id} is on this node",
            remedy="ask the node that one of the ends is on",
        )
    if len(ports) == 2 and (ports[0].name, ports[0].netns) == (ports[1].name, ports[1].netns):
        raise Invalid(
            f"both ends of connection {wire.id} are called {ports[0].name} in {ports[0].netns}",
            remedy="give the two ends different names, or different namespaces",
        )


_NOTHING: frozenset[Any] = frozenset()


def desired_end(port: KernelPort, index: int) -> EndState:
    """Return what ``port`` asks for, of an interface with this index; raises Invalid."""
    mac = parse_mac(port.mac) if port.mac else b""
    if not port.numbered:
        return EndState(mac=mac, mtu=port.mtu, ipv6=None if port.led else False)
    addresses = tuple(map(parse_prefix, port.addresses))
    if len(addresses) > 1:
        addresses = tuple(dict.fromkeys(addresses))
    if 0 < port.mtu < IPV6_MTU and any(len(prefix.address) == 16 for prefix in addresses):
        raise Invalid(
            f"{port.name} cannot have IPv6 addresses with an MTU of {port.mtu}",
            remedy=f"use an MTU of at least {IPV6_MTU}, or IPv4 alone",
        )
    routes = _routes(port.routes, RT_TABLE_MAIN)
    rules: frozenset[RuleState] = _NOTHING
    if port.rules:
        rules, routed = _rules(port.rules, index)
        routes |= routed
    # A later entry for the same address wins, as it does in the kernel.
    macs = {parse_ip(neighbour.ip): parse_mac(neighbour.mac) for neighbour in port.neighbours}
    neighbours = frozenset(map(NeighbourState._make, macs.items()))
    return EndState(mac, port.mtu, True, True, addresses, _NOTHING, routes, neighbours, rules)  # noqa: FBT003 - up, with IPv6


def _routes(routes: Iterable[Route], table: int) -> frozenset[RouteState]:
    """Return routes in the kernel's terms; of several with one prefix the last is meant."""
    by_prefix = {}
    for route in routes:
        prefix = parse_network(route.prefix)
        via = parse_ip(route.via) if route.via else b""
        if via and len(via) != len(prefix.address):
            raise Invalid(
                f"the route {route.prefix} has its gateway {route.via} in another family",
                remedy="give a gateway of the same family",
            )
        by_prefix[prefix] = RouteState(prefix, via, table)
    return frozenset(by_prefix.values())


def _rules(rules: tuple[PolicyRule, ...], index: int) -> tuple[frozenset[RuleState], frozenset[RouteState]]:
    if len(rules) > RULES_PER_END:
        raise Invalid(f"{len(rules)} policy rules are too many", remedy=f"use at most {RULES_PER_END}")
    states: set[RuleState] = set()
    routed: set[RouteState] = set()
    for ordinal, rule in enumerate(rules):
        if rule.protocol is not None and not 0 <= rule.protocol <= 255:
            raise Invalid(
                f"{rule.protocol} is no IP protocol number", remedy="use 0 to 255, such as 6 for TCP"
            )
        table = rule_table(index, ordinal)
        routes = _routes(rule.routes or (Route("0.0.0.0/0"),), table)
        source = parse_network(rule.source) if rule.source else None
        families = {source.family} if source else {route.prefix.family for route in routes}
        plain = RuleState(
            0, source, rule.protocol, _ports(rule.source_ports), _ports(rule.destination_ports), table
        )
        states.update(plain._replace(family=number) for number in families)
        routed |= routes
    return frozenset(states), frozenset(routed)


def _ports(ports: tuple[int, int] | None) -> tuple[int, int] | None:
    if ports is not None and not 0 < ports[0] <= ports[1] < 65536:
        raise Invalid(f"{ports[0]}-{ports[1]} is no range of ports", remedy="use 1 to 65535, low end first")
    return ports
