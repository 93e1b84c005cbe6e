"""A SRV6 wire at its end in the node: the program that sends, and the route that takes packets out (End.DX2).

Both hang on the interface of that end, and go with it.
"""

from __future__ import annotations

import errno
import os
import struct
from ipaddress import IPv6Address

from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath import traffic_control as tc
from nsmesh.datapath.base import TunnelRefused, TunnelTaken
from nsmesh.datapath.netlink import Batch, Message, Netlink, attribute, attributes, request, u32
from nsmesh.datapath.packed import parse_ip
from nsmesh.datapath.rtread import read_addresses
from nsmesh.datapath.srv6_program import encapsulating
from nsmesh.datapath.vlan_messages import attach, program_at
from nsmesh.model.tunnels import ONE_LINK, Srv6Port

RTA_ENCAP_TYPE, RTA_ENCAP, LWTUNNEL_ENCAP_SEG6_LOCAL = 21, 22, 7
SEG6_LOCAL_ACTION, SEG6_LOCAL_OIF, SEG6_LOCAL_ACTION_END_DX2 = 1, 7, 4
RT_TABLE_MAIN, WHOLE = 254, 128

_NUMBER = struct.Struct("=I")
_HANDLE = 1
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})


def take_out(sid: str, index: int, *, add: bool = True) -> Message:
    """Have what comes for a segment identifier taken out and sent through the interface with an index."""
    inner = u32(SEG6_LOCAL_ACTION, SEG6_LOCAL_ACTION_END_DX2) + u32(SEG6_LOCAL_OIF, index)
    body = rt.RTMSG.pack(
        *(rt.AF_INET6, WHOLE, 0, 0, RT_TABLE_MAIN, rt.RULE_PROTOCOL, rt.RT_SCOPE_UNIVERSE),
        *(rt.RTN_UNICAST, 0),
    )
    body += attribute(rt.RTA_DST, parse_ip(sid)) + u32(rt.RTA_OIF, index)
    body += attribute(RTA_ENCAP_TYPE, struct.pack("=H", LWTUNNEL_ENCAP_SEG6_LOCAL))
    body += attribute(RTA_ENCAP | rt.NLA_F_NESTED, inner)
    if add:
        return request(rt.RTM_NEWROUTE, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body)
    return request(rt.RTM_DELROUTE, 0, body)


def taken_out(netlink: Netlink, index: int) -> list[str]:
    """Return the segment identifiers whose packets are sent through an interface; raises OSError."""
    netlink.strict()
    body = rt.RTMSG.pack(rt.AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0) + u32(rt.RTA_OIF, index)
    found = []
    for _, answer in netlink.dump(request(rt.RTM_GETROUTE, 0, body)):
        protocol = rt.RTMSG.unpack_from(answer)[5]
        values = attributes(answer, rt.RTMSG.size)
        if protocol == rt.RULE_PROTOCOL and values.get(rt.RTA_OIF) == _NUMBER.pack(index):
            found.append(str(IPv6Address(values.get(rt.RTA_DST, bytes(16)))))
    return found


def is_routed(tunnel: Srv6Port) -> bool:
    """Whether routers know the other node's segment identifier; which of them leads there may change."""
    return IPv6Address(tunnel.remote_sid) not in ONE_LINK


def way_to(netlink: Netlink, tunnel: Srv6Port) -> tuple[int, str]:
    """Return the interface by which packets leave, and to whose address on its link.

    That is the other node, where it is on the link of this node's address, else the router that leads to its
    segment identifier. Raises TunnelRefused where there is neither, OSError.
    """
    own = [
        one for one in read_addresses(netlink, family=rt.AF_INET6) if one.address == parse_ip(tunnel.local)
    ]
    if not own:
        raise TunnelRefused(
            f"the address {tunnel.local} of SRV6 wires is on no link of this node",
            remedy="give it back to the node, or offer another mechanism",
        )
    beside = _route_to(netlink, tunnel.remote, own[0].index)
    if beside and rt.RTA_GATEWAY not in beside:
        return own[0].index, tunnel.remote
    if not is_routed(tunnel):
        raise TunnelRefused(
            f"the other node, {tunnel.remote}, is not on the link of {tunnel.local}, "
            "and routers between nodes do not know the segment identifiers of wires",
            remedy="join the nodes by one link, use another mechanism between them, or have a prefix "
            "routed to each node, NSM_SRV6_PREFIX of its forwarder",
        )
    routed = _route_to(netlink, tunnel.remote_sid)
    if rt.RTA_GATEWAY not in routed or rt.RTA_OIF not in routed:
        raise TunnelRefused(
            f"no router leads to {tunnel.remote_sid}, the segment identifier of the node {tunnel.remote}",
            remedy="have its NSM_SRV6_PREFIX routed to it, or use another mechanism between the nodes",
        )
    return _NUMBER.unpack(routed[rt.RTA_OIF])[0], str(IPv6Address(routed[rt.RTA_GATEWAY]))


def _route_to(netlink: Netlink, address: str, interface: int = 0) -> dict[int, bytes]:
    """Return what the kernel says of the way to an address, nothing where it has none; raises OSError."""
    body = rt.RTMSG.pack(rt.AF_INET6, WHOLE, 0, 0, 0, 0, 0, 0, 0) + attribute(rt.RTA_DST, parse_ip(address))
    try:
        answers = netlink.ask(
            request(rt.RTM_GETROUTE, 0, body + (u32(rt.RTA_OIF, interface) if interface else b""))
        )
    except OSError as error:
        if error.errno not in _NO_WAY:
            raise
        return {}
    return attributes(answers[0][1], rt.RTMSG.size) if answers else {}


def name_of(tunnel: Srv6Port, interface: int, hop: str) -> str:
    """Return the name of the program of a tunnel, which says all that it depends on."""
    return f"nsm_srv6 {tunnel.local} {tunnel.remote_sid} {hop} {interface}"


def send_out(netlink: Netlink, near: int, tunnel: Srv6Port, interface: int, hop: str) -> None:
    """Have all that comes in at an end go out to ``hop``, its next hop; raises OSError, TunnelRefused."""
    name = name_of(tunnel, interface, hop)
    if program_at(netlink, near, tc.INGRESS, _HANDLE) == name:
        return
    code = encapsulating(tunnel.local, tunnel.remote_sid, hop, interface)
    attach(netlink, near, tc.INGRESS, _HANDLE, code, name, kind="nsm_srv6")


def take_in(netlink: Netlink, near: int, tunnel: Srv6Port) -> None:
    """Have the packets for the wire's segment identifier sent through its end, and those for no other.

    Raises TunnelTaken where another wire has the identifier, and OSError.
    """
    standing = taken_out(netlink, near)
    batch = Batch()
    for sid in standing:
        if sid != tunnel.local_sid:
            batch.put(take_out(sid, near, add=False))
    if tunnel.local_sid not in standing:
        batch.put(take_out(tunnel.local_sid, near))
    for failure in netlink.send(batch) if batch else ():
        if failure.number == errno.EEXIST:
            raise TunnelTaken(
                f"the segment identifier {tunnel.local_sid} of this node is another wire's",
                remedy="ask again: another one is chosen",
            )
        raise OSError(failure.number, failure.text or os.strerror(failure.number))
