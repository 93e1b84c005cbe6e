"""Requests that find out what a kernel can do, by asking it for one of each where nobody sees."""

from __future__ import annotations

import struct

from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.device import described
from nsmesh.datapath.geneve import data_of as geneve_data
from nsmesh.datapath.gre import data_of as gre_data
from nsmesh.datapath.netlink import Message, attribute, request, u32
from nsmesh.datapath.vxlan import IFLA_VXLAN_ID
from nsmesh.model.tunnels import GenevePort, GrePort

LOOPBACK = 1
"""Index of ``lo`` in every namespace."""
MPLS, SEG6, SEG6_LOCAL = 1, 5, 7
"""Encapsulations of routes (LWTUNNEL_ENCAP_*)."""

_IFLA_LINK = 5
_RTA_ENCAP_TYPE, _RTA_ENCAP = 21, 22
_HERE, _THERE = "127.0.0.1", "127.0.0.2"


def new_link(kind: str, data: bytes = b"", *, index: int = 0, parent: int = 0) -> Message:
    """Ask for an interface of a kind."""
    body = rt.IFINFO.pack(0, 0, index, 0, 0) + described(kind, data)
    if parent:
        body += u32(_IFLA_LINK, parent)
    return request(rt.RTM_NEWLINK, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body)


def new_vxlan() -> Message:
    """Ask for a VXLAN device."""
    return new_link("vxlan", u32(IFLA_VXLAN_ID, 1))


def new_geneve() -> Message:
    """Ask for a Geneve device."""
    return new_link("geneve", geneve_data(GenevePort(1, _HERE, _THERE)))


def new_gre() -> Message:
    """Ask for a GRE device that carries frames."""
    return new_link("gretap", gre_data(GrePort(1, _HERE, _THERE)))


def new_route(family: int, encapsulation: int) -> Message:
    """Ask for a route with an encapsulation; so bare a one is refused where the kernel knows it, too."""
    size = 4 if family == rt.AF_INET else 16
    body = rt.RTMSG.pack(family, size * 8, 0, 0, 0, rt.RTPROT_BOOT, 0, rt.RTN_UNICAST, 0)
    body += attribute(rt.RTA_DST, bytes([10, *bytes(size - 2), 1])) + u32(rt.RTA_OIF, LOOPBACK)
    body += attribute(_RTA_ENCAP_TYPE, struct.pack("=H", encapsulation))
    body += attribute(_RTA_ENCAP | rt.NLA_F_NESTED, b"")
    return request(rt.RTM_NEWROUTE, rt.NLM_F_CREATE, body)
