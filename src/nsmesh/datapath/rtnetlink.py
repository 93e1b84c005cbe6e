"""Route netlink, the requests: each function returns one message that is ready for a batch. Pure.

Constants carry the kernel's own names.
"""

from __future__ import annotations

import struct

from nsmesh.datapath.netlink import NLM_F_REQUEST, Message, attribute, request, u32
from nsmesh.datapath.packed import Prefix
from nsmesh.datapath.wirestate import RT_TABLE_MAIN, NeighbourState, RouteState, RuleState

NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

AF_INET, AF_INET6 = 2, 10
NLA_F_NESTED = 0x8000
IFF_UP, IFF_PROMISC = 0x1, 0x100
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_LINKINFO = 1, 3, 4, 5, 18
IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD, IFLA_EXT_MASK = 20, 26, 27, 28, 29
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES, IFLA_LINK_NETNSID = 31, 32, 37
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_INET_CONF, IPV4_DEVCONF_PROMOTE_SECONDARIES = 1, 20
IFLA_INET6_CONF, DEVCONF_DISABLE_IPV6, IFLA_INET6_ADDR_GEN_MODE = 2, 26, 8
IN6_ADDR_GEN_MODE_NONE = 1
RTEXT_FILTER_SKIP_STATS = 8
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_F_NODAD = 1, 2, 8, 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, RTNH_F_ONLINK = 3, 0, 1, 4
NDA_DST, NDA_LLADDR, NDA_IFINDEX, NUD_PERMANENT = 1, 2, 8, 0x80
FRA_SRC, FRA_PRIORITY, FRA_TABLE, FRA_PROTOCOL = 2, 6, 15, 21
FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE, FR_ACT_TO_TBL = 22, 23, 24, 1

RULE_PROTOCOL = 110
"""FRA_PROTOCOL of our rules: who made them."""
RULE_PRIORITY = 30000
"""Priority of an interface's first rule; the main table's is 32766."""
IPV6_METRIC = 512
"""Before a route that the CNI gave the same prefix (1024), behind the kernel's own (256)."""

IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBI")
RTMSG = struct.Struct("=BBBBBBBBI")
NDMSG = struct.Struct("=BxxxiHBB")
PORT_RANGE = struct.Struct("=HH")

# The requests that every wire needs in one go, by the length of an address: the header (size, type, flags,
# sequence, port), what is always there, and the attributes with their own headers.
_HEAD = "=IHHII"
_ADDRESS = {size: struct.Struct(f"{_HEAD} BBBBI HH{size}s HH{size}s") for size in (4, 16)}
_ROUTE = {size: struct.Struct(f"{_HEAD} BBBBBBBBI HH{size}s HHI") for size in (4, 16)}
_NEIGHBOUR = {size: struct.Struct(f"{_HEAD} BxxxiHBB HH{size}s HH6sxx") for size in (4, 16)}
_STATE = struct.Struct(f"{_HEAD} BxHiII")
_NEW_LINK = struct.Struct("=BxHiII HH6sxx HHI HH16s")
_NEW = NLM_F_REQUEST | NLM_F_CREATE
_NEW_OR_OTHER = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE

_ONE_QUEUE = u32(IFLA_NUM_TX_QUEUES, 1) + u32(IFLA_NUM_RX_QUEUES, 1)
_VETH = attribute(IFLA_INFO_KIND, b"veth\0")
_NO_LINK_LOCAL = attribute(
    IFLA_AF_SPEC | NLA_F_NESTED,
    attribute(AF_INET6 | NLA_F_NESTED, attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))),
)
_PROMOTE = attribute(
    IFLA_AF_SPEC | NLA_F_NESTED,
    attribute(
        AF_INET | NLA_F_NESTED,
        attribute(IFLA_INET_CONF | NLA_F_NESTED, u32(IPV4_DEVCONF_PROMOTE_SECONDARIES, 1)),
    ),
)


def new_end(index: int, name: str, mac: bytes, mtu: int, group: int) -> bytes:
    """Return what a request for a new interface says about it, whatever its kind."""
    raw = name.encode()
    more = u32(IFLA_MTU, mtu) + _ONE_QUEUE if mtu else _ONE_QUEUE
    return _NEW_LINK.pack(0, 0, index, 0, 0, 10, 1, mac, 8, IFLA_GROUP, group, 20, IFLA_IFNAME, raw) + more


def new_veth(
    a: tuple[int, str, bytes, int], b: tuple[int, str, bytes, int], b_netns: int | None, group: int
) -> Message:
    """Make a veth pair: ends are (index, name, MAC, MTU); ``b_netns`` is where the second end is made."""
    peer = new_end(*b, group)
    if b_netns is not None:
        peer += u32(IFLA_NET_NS_FD, b_netns)
    info = _VETH + attribute(IFLA_INFO_DATA | NLA_F_NESTED, attribute(VETH_INFO_PEER | NLA_F_NESTED, peer))
    body = new_end(*a, group) + attribute(IFLA_LINKINFO | NLA_F_NESTED, info)
    return request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body)


def _set(index: int, data: bytes) -> Message:
    return request(RTM_SETLINK, 0, IFINFO.pack(0, 0, index, 0, 0) + data)


def mark(index: int, alias: str, *, no_link_local: bool) -> Message:
    """Write the owner's mark; with ``no_link_local`` also stop IPv6 link-local addresses from being made."""
    data = attribute(IFLA_IFALIAS, alias.encode())
    return _set(index, data + _NO_LINK_LOCAL if no_link_local else data)


def set_up(index: int, *, up: bool = True) -> Message:
    """Set an interface up or down."""
    flags = IFF_UP if up else 0
    return _STATE.pack(32, RTM_SETLINK, NLM_F_REQUEST, 0, 0, 0, 0, index, flags, IFF_UP)


def set_promiscuous(index: int) -> Message:
    """Set an interface up, and have it take frames for everybody."""
    flags = IFF_UP | IFF_PROMISC
    return _STATE.pack(32, RTM_SETLINK, NLM_F_REQUEST, 0, 0, 0, 0, index, flags, flags)


def set_mac(index: int, mac: bytes) -> Message:
    """Give an interface another MAC."""
    return _set(index, attribute(IFLA_ADDRESS, mac))


def set_mtu(index: int, mtu: int) -> Message:
    """Give an interface another MTU."""
    return _set(index, u32(IFLA_MTU, mtu))


def set_name(index: int, name: str) -> Message:
    """Rename an interface."""
    return _set(index, attribute(IFLA_IFNAME, name.encode() + b"\0"))


def set_group(index: int, group: int) -> Message:
    """Put an interface into a group."""
    return _set(index, u32(IFLA_GROUP, group))


def promote_secondaries(index: int) -> Message:
    """Keep the other addresses of a subnet when its first one is removed."""
    return _set(index, _PROMOTE)


def delete_group(group: int) -> Message:
    """Delete all interfaces of a group at once."""
    return request(RTM_DELLINK, 0, IFINFO.pack(0, 0, 0, 0, 0) + u32(IFLA_GROUP, group))


def get_link(*, index: int = 0, name: str = "") -> Message:
    """Ask for one interface, by index or name."""
    body = IFINFO.pack(0, 0, index, 0, 0) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    if name:
        body += attribute(IFLA_IFNAME, name.encode() + b"\0")
    return request(RTM_GETLINK, 0, body)


def address(index: int, prefix: Prefix, *, add: bool) -> Message:
    """Add or remove an address; IPv6 without duplicate address detection."""
    own, length = prefix
    kind, flags = (RTM_NEWADDR, _NEW_OR_OTHER) if add else (RTM_DELADDR, NLM_F_REQUEST)
    if len(own) == 4:
        return _ADDRESS[4].pack(40, kind, flags, 0, 0, 2, length, 0, 0, index, 8, 2, own, 8, 1, own)
    nodad = IFA_F_NODAD
    return _ADDRESS[16].pack(64, kind, flags, 0, 0, 10, length, nodad, 0, index, 20, 2, own, 20, 1, own)


def route(index: int, state: RouteState, *, add: bool) -> Message:
    """Add or remove a route.

    It is put in front of one with the same prefix through another interface, never in its place: that one
    works again as soon as ours is gone.
    """
    (target, length), via, table = state
    size = len(target)
    more = attribute(RTA_GATEWAY, via) if via else b""
    if table != RT_TABLE_MAIN:
        more += u32(RTA_TABLE, table)
    if size == 16:
        more += u32(RTA_PRIORITY, IPV6_METRIC)
    kind, flags = (RTM_NEWROUTE, _NEW) if add else (RTM_DELROUTE, NLM_F_REQUEST)
    protocol, onlink = RTPROT_BOOT, RTNH_F_ONLINK if via else 0
    short, family, packing = table if table < 256 else 0, AF_INET if size == 4 else AF_INET6, _ROUTE[size]
    total = packing.size + len(more)
    message = packing.pack(
        total, kind, flags, 0, 0,
        family, length, 0, 0, short, protocol, RT_SCOPE_UNIVERSE, RTN_UNICAST, onlink,
        4 + size, RTA_DST, target, 8, RTA_OIF, index,
    )  # fmt: skip
    return message + more if more else message


def neighbour(index: int, state: NeighbourState, *, add: bool) -> Message:
    """Add, replace or remove a permanent neighbour."""
    ip, mac = state
    size = len(ip)
    kind, flags = (RTM_NEWNEIGH, _NEW_OR_OTHER) if add else (RTM_DELNEIGH, NLM_F_REQUEST)
    if size == 4:
        return _NEIGHBOUR[4].pack(48, kind, flags, 0, 0, 2, index, 0x80, 0, 0, 8, 1, ip, 10, 2, mac)
    return _NEIGHBOUR[16].pack(60, kind, flags, 0, 0, 10, index, 0x80, 0, 0, 20, 1, ip, 10, 2, mac)


def rule(state: RuleState, *, add: bool) -> Message:
    """Add or remove a policy rule. Rules of one interface are tried in the order of their tables."""
    source = state.source
    body = (
        RTMSG.pack(state.family, 0, source.length if source else 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
        + u32(FRA_TABLE, state.table)
        + u32(FRA_PRIORITY, RULE_PRIORITY + (state.table & 0xFF))
        + attribute(FRA_PROTOCOL, bytes([RULE_PROTOCOL]))
    )
    if source:
        body += attribute(FRA_SRC, source.address)
    if state.protocol is not None:
        body += attribute(FRA_IP_PROTO, bytes([state.protocol]))
    if state.source_ports:
        body += attribute(FRA_SPORT_RANGE, PORT_RANGE.pack(*state.source_ports))
    if state.destination_ports:
        body += attribute(FRA_DPORT_RANGE, PORT_RANGE.pack(*state.destination_ports))
    if add:
        return request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, body)
    return request(RTM_DELRULE, 0, body)
