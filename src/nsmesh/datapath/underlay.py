"""The network that joins the nodes: the link that has this node's address."""

from __future__ import annotations

import time
from ipaddress import IPv6Address

from nsmesh.core.errors import Unavailable
from nsmesh.datapath import netns
from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import Netlink
from nsmesh.datapath.packed import parse_ip
from nsmesh.datapath.rtread import read_addresses, read_link

LOOK = 1.0
"""Seconds for which what was read of the underlay's link is good."""

IFA_F_TEMPORARY, IFA_F_DADFAILED, IFA_F_DEPRECATED = 0x01, 0x08, 0x20
_PASSING = IFA_F_TEMPORARY | IFA_F_DADFAILED | IFA_F_DEPRECATED
_IPV6 = 16


def ipv6_beside(ip: str) -> str:
    """Return an IPv6 address of the link that has the address ``ip``, that itself where it is one.

    Empty where the link has no global one. Looks in the calling thread's namespace.
    """
    if ":" in ip:
        return ip
    with Netlink() as netlink:
        assigned = read_addresses(netlink)
    wanted = [one.index for one in assigned if one.address == parse_ip(ip)]
    for one in assigned:
        lasts = one.scope == rt.RT_SCOPE_UNIVERSE and not one.flags & _PASSING
        if one.index in wanted[-1:] and len(one.address) == _IPV6 and lasts:
            return str(IPv6Address(one.address))
    return ""


class Underlay:
    """The link of a node that has the tunnel address ``ip``; ``node`` is the path of its namespace.

    An empty ``node`` means the calling thread's own.
    """

    def __init__(self, ip: str, *, node: str = "") -> None:
        self.ip = ip
        self._packed = parse_ip(ip)
        self._node = node
        self._mtu = 0
        self._until = 0.0

    def mtu(self) -> int:
        """Return the link's MTU in bytes; raises Unavailable where no link has the address, or it is down."""
        now = time.monotonic()
        if now >= self._until:
            try:
                with netns.call_in(self._node, Netlink) if self._node else Netlink() as netlink:
                    self._mtu = self._read(netlink)
            except OSError as error:
                raise explain(error.errno or 0, f"cannot look for the tunnel address {self.ip}") from error
            self._until = now + LOOK
        return self._mtu

    def _read(self, netlink: Netlink) -> int:
        for one in read_addresses(netlink):
            if one.address != self._packed:
                continue
            link = read_link(netlink, index=one.index)
            if link is not None and link.up:
                return link.mtu
            raise Unavailable(
                f"the link of the tunnel address {self.ip} is down on this node",
                remedy="set it up again; wires to other nodes need it",
            )
        raise Unavailable(
            f"the tunnel address {self.ip} is on no link of this node",
            remedy="set NSM_TUNNEL_IP of its forwarder to the address by which other nodes reach it",
        )
