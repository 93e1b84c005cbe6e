"""What frames of a payload look like to OpenFlow 1.3: matches of flows, as on the wire. Pure.

For wires whose ends are both sockets: where one end is an interface, the kernel's programs enforce the
payload there (see ``payload_program.py``).
"""

from __future__ import annotations

import struct

from nsmesh.model.messages import ETHERNET, IP, L2TP, MPLS

Match = tuple[tuple[int, int], ...]
"""Fields and their values, those first that others depend on."""

OXM_IN_PORT, OXM_ETH_TYPE, OXM_VLAN_VID = 0x8000_0004, 0x8000_0A02, 0x8000_0C02
OXM_VLAN_VID_MASKED, _ANY_TAG = 0x8000_0D04, 0x1000_1000
OXM_IP_PROTO, OXM_UDP_SRC, OXM_UDP_DST, OXM_ICMPV6_TYPE = 0x8000_1401, 0x8000_1E02, 0x8000_2002, 0x8000_3A01
"""Headers of fields: the last byte is the number of bytes of the value."""
_OFPMT_OXM, _LENGTH = 1, 0xFF
_UDP, _L2TP, _ICMPV6, _PORT = 17, 115, 58, 1701
_IPV4, _IPV6, _ARP, _MPLS = 0x0800, 0x86DD, 0x0806, (0x8847, 0x8848)


def _of(kind: int, *more: tuple[int, int]) -> Match:
    return ((OXM_VLAN_VID, 0), (OXM_ETH_TYPE, kind), *more)


def _l2tp(kind: int) -> tuple[Match, ...]:
    datagram = (OXM_IP_PROTO, _UDP)
    return (
        _of(kind, (OXM_IP_PROTO, _L2TP)),
        _of(kind, datagram, (OXM_UDP_SRC, _PORT)),
        _of(kind, datagram, (OXM_UDP_DST, _PORT)),
    )


PASSES: dict[str, tuple[Match, ...]] = {
    ETHERNET: ((),),
    IP: (_of(_IPV4), _of(_IPV6), _of(_ARP)),
    MPLS: tuple(map(_of, _MPLS)),
    L2TP: (
        _of(_ARP),
        *_l2tp(_IPV4),
        *_l2tp(_IPV6),
        *(_of(_IPV6, (OXM_IP_PROTO, _ICMPV6), (OXM_ICMPV6_TYPE, kind)) for kind in (135, 136)),
    ),
}
"""By payload, what passes; the rest is dropped, since the bridge forwards nothing by itself."""

REFUSES: dict[str, tuple[Match, ...]] = {
    "ipv4": (_of(_IPV4),),
    "ipv6": (_of(_IPV6),),
    "arp": (_of(_ARP),),
    "mpls": tuple(map(_of, _MPLS)),
    "vlan": (((OXM_VLAN_VID_MASKED, _ANY_TAG),),),
    "other": ((),),
}
"""What is dropped where nothing says that it passes, by what it is called; the last one is all the rest."""


def encoded(match: Match) -> bytes:
    """Return a match with its header and padding."""
    fields = b"".join(
        struct.pack("!I", field) + value.to_bytes(field & _LENGTH, "big") for field, value in match
    )
    length = 4 + len(fields)
    return struct.pack("!HH", _OFPMT_OXM, length) + fields + bytes(-length % 8)
