"""Route netlink, the answers: what one namespace holds, as values."""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection
from dataclasses import dataclass, field

from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.netlink import Message, Netlink, attributes, request
from nsmesh.datapath.packed import Prefix
from nsmesh.datapath.wirestate import (
    RT_TABLE_MAIN,
    EndState,
    NeighbourState,
    RouteState,
    RuleState,
    owner_of,
    table_index,
)

_U32 = struct.Struct("=I")
_FAMILIES = (2, 10)

FEW = 8
"""Interfaces that are read one by one; more are read by a dump of all."""


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. ``link`` is its peer's index, in a namespace that the kernel does not name here.

    ``ipv6`` is None where the interface has no IPv6 at all.
    """

    index: int
    name: str
    mac: bytes
    mtu: int
    up: bool
    alias: str = ""
    group: int = 0
    link: int = 0
    ipv6: bool | None = field(default=None, compare=False)

    @property
    def owner(self) -> str:
        """The id of the connection that the interface belongs to, or nothing."""
        return owner_of(self.alias)


def parse_link(body: bytes) -> Link:
    """Return what an RTM_NEWLINK or RTM_DELLINK says."""
    _, _, index, flags, _ = rt.IFINFO.unpack_from(body)
    found = attributes(body, rt.IFINFO.size)
    return Link(
        index=index,
        name=_text(found.get(rt.IFLA_IFNAME, b"")),
        mac=found.get(rt.IFLA_ADDRESS, b""),
        mtu=_number(found.get(rt.IFLA_MTU)),
        up=bool(flags & rt.IFF_UP),
        alias=_text(found.get(rt.IFLA_IFALIAS, b"")),
        group=_number(found.get(rt.IFLA_GROUP)),
        link=_number(found.get(rt.IFLA_LINK)),
        ipv6=_ipv6(found.get(rt.IFLA_AF_SPEC, b"")),
    )


def read_link(netlink: Netlink, *, index: int = 0, name: str = "") -> Link | None:
    """Return one interface by index or name, or None where there is none; raises OSError."""
    try:
        answers = netlink.ask(rt.get_link(index=index, name=name))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return parse_link(answers[0][1]) if answers else None


def read_links(netlink: Netlink) -> list[Link]:
    """Return all interfaces of the namespace; raises OSError."""
    return [parse_link(body) for _, body in netlink.dump(rt.get_link())]


def read_some_links(netlink: Netlink, indexes: Collection[int]) -> list[Link]:
    """Return those of some interfaces that are there: one by one, or many by one dump; raises OSError."""
    if len(indexes) <= FEW:
        found = (read_link(netlink, index=index) for index in indexes)
        return [link for link in found if link is not None]
    wanted = set(indexes)
    return [link for link in read_links(netlink) if link.index in wanted]


@dataclass(frozen=True, slots=True)
class Assigned:
    """An address that an interface has: packed, with the length of its prefix, its scope and flags."""

    index: int
    address: bytes
    length: int
    scope: int
    flags: int


def read_addresses(netlink: Netlink, *, family: int = 0, index: int = 0) -> list[Assigned]:
    """Return the addresses of a namespace, or of one interface; raises OSError. ``family`` 0: both."""
    message = request(rt.RTM_GETADDR, 0, rt.IFADDR.pack(family, 0, 0, 0, index))
    found = []
    for _, body in _dump(netlink, message):
        _, length, flags, scope, owner = rt.IFADDR.unpack_from(body)
        values = attributes(body, rt.IFADDR.size)
        address = values.get(rt.IFA_LOCAL) or values.get(rt.IFA_ADDRESS)
        if address and index in {0, owner}:
            flags = _number(values.get(rt.IFA_FLAGS)) or flags
            found.append(Assigned(owner, address, length, scope, flags))
    return found


def read_end(netlink: Netlink, link: Link) -> EndState:
    """Return what belongs to one of our interfaces; raises OSError."""
    netlink.strict()
    addresses, narrower = _addresses(netlink, link.index)
    return EndState(
        mac=link.mac,
        mtu=link.mtu,
        up=link.up,
        ipv6=link.ipv6,
        addresses=addresses,
        narrower=narrower,
        routes=_routes(netlink, link.index),
        neighbours=_neighbours(netlink, link.index),
        rules=frozenset(rule for rule in read_rules(netlink) if table_index(rule.table) == link.index),
    )


def read_rules(netlink: Netlink) -> list[RuleState]:
    """Return the policy rules that this driver made in the namespace; raises OSError."""
    netlink.strict()
    found = []
    for number in _FAMILIES:
        message = request(rt.RTM_GETRULE, 0, rt.RTMSG.pack(number, 0, 0, 0, 0, 0, 0, 0, 0))
        for _, body in _dump(netlink, message):
            _, _, source_length, _, table, _, _, _, _ = rt.RTMSG.unpack_from(body)
            values = attributes(body, rt.RTMSG.size)
            if values.get(rt.FRA_PROTOCOL) != bytes([rt.RULE_PROTOCOL]):
                continue
            source = values.get(rt.FRA_SRC)
            protocol = values.get(rt.FRA_IP_PROTO)
            found.append(
                RuleState(
                    number,
                    Prefix(source, source_length) if source else None,
                    protocol[0] if protocol else None,
                    _ports(values.get(rt.FRA_SPORT_RANGE)),
                    _ports(values.get(rt.FRA_DPORT_RANGE)),
                    _number(values.get(rt.FRA_TABLE)) or table,
                )
            )
    return found


def _addresses(netlink: Netlink, index: int) -> tuple[tuple[Prefix, ...], frozenset[Prefix]]:
    found = [
        (one.scope == rt.RT_SCOPE_UNIVERSE, Prefix(one.address, one.length))
        for one in read_addresses(netlink, index=index)
    ]
    universe = tuple(prefix for everywhere, prefix in found if everywhere)
    return universe, frozenset(prefix for everywhere, prefix in found if not everywhere)


def _routes(netlink: Netlink, index: int) -> frozenset[RouteState]:
    """Return the unicast routes through the interface that somebody set (not the kernel, not a daemon)."""
    found = set()
    for number in _FAMILIES:
        body = rt.RTMSG.pack(number, 0, 0, 0, 0, 0, 0, 0, 0) + struct.pack("=HHI", 8, rt.RTA_OIF, index)
        for _, answer in _dump(netlink, request(rt.RTM_GETROUTE, 0, body)):
            _, length, _, _, table, protocol, _, kind, _ = rt.RTMSG.unpack_from(answer)
            values = attributes(answer, rt.RTMSG.size)
            table = _number(values.get(rt.RTA_TABLE)) or table
            ours = table == RT_TABLE_MAIN or table_index(table) == index
            if (
                not ours
                or protocol != rt.RTPROT_BOOT
                or kind != rt.RTN_UNICAST
                or _number(values.get(rt.RTA_OIF)) != index
            ):
                continue
            empty = bytes(4 if number == _FAMILIES[0] else 16)
            prefix = Prefix(values.get(rt.RTA_DST, empty), length)
            found.add(RouteState(prefix, values.get(rt.RTA_GATEWAY, b""), table))
    return frozenset(found)


def _neighbours(netlink: Netlink, index: int) -> frozenset[NeighbourState]:
    found = set()
    body = rt.NDMSG.pack(0, 0, 0, 0, 0) + struct.pack("=HHI", 8, rt.NDA_IFINDEX, index)
    for _, answer in _dump(netlink, request(rt.RTM_GETNEIGH, 0, body)):
        number, owner, state, _, _ = rt.NDMSG.unpack_from(answer)
        if owner != index or not state & rt.NUD_PERMANENT or number not in _FAMILIES:
            continue
        values = attributes(answer, rt.NDMSG.size)
        found.add(NeighbourState(values[rt.NDA_DST], values.get(rt.NDA_LLADDR, b"")))
    return frozenset(found)


def _dump(netlink: Netlink, message: Message) -> list[tuple[int, bytes]]:
    """Dump; a family that this kernel lacks, and a table that nobody made yet, hold nothing."""
    try:
        return netlink.dump(message)
    except OSError as error:
        if error.errno in {errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT, errno.ENODEV}:
            return []
        raise


def _ipv6(af_spec: bytes) -> bool | None:
    inner = attributes(attributes(af_spec).get(10, b"")).get(rt.IFLA_INET6_CONF, b"")
    at = rt.DEVCONF_DISABLE_IPV6 * 4
    return None if len(inner) < at + 4 else _U32.unpack_from(inner, at)[0] == 0


def _ports(value: bytes | None) -> tuple[int, int] | None:
    if value is None:
        return None
    low, high = rt.PORT_RANGE.unpack(value)
    return low, high


def _number(value: bytes | None) -> int:
    return int(_U32.unpack(value)[0]) if value else 0


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="surrogateescape")
