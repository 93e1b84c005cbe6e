"""What goes in front of a frame of a SRV6 wire."""

import ipaddress
import struct

from nsmesh.datapath import srv6_program
from nsmesh.mechanisms.srv6 import Srv6


def test_the_headers_are_those_of_the_standards():
    """IPv6 (RFC 8200), one segment (RFC 8754), an Ethernet frame behind it (RFC 8986)."""
    made = srv6_program.outer("2001:db8::1", "fd5e::b")
    assert len(made) == srv6_program.HEADERS == Srv6.headers[6]
    assert made[:14] == bytes(12) + b"\x86\xdd"
    first, length, following, hops = struct.unpack_from(">IHBB", made, 14)
    assert (first >> 28, first & 0xFFFFFFF, length, following, hops) == (6, 0, 0, 43, 64)
    source, destination = made[22:38], made[38:54]
    assert str(ipaddress.ip_address(source)) == "2001:db8::1"
    assert str(ipaddress.ip_address(destination)) == "fd5e::b"
    assert made[54:62] == bytes([143, 2, 4, 0, 0, 0, 0, 0])
    assert made[62:] == destination
