"""Frames by class."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.endpoints.capture import ARP, LISTENER_DISCOVERY, MESSAGES, NEIGHBOUR_DISCOVERY, Report, classify

MACS = b"\x02" * 12


def ipv4(protocol: int, segment: bytes, *, tail: int = 0, options: bytes = b"") -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 0, 0, tail, 64, protocol, 0) + bytes(8)
    return MACS + b"\x08\x00" + head + options + segment


def ipv6(protocol: int, segment: bytes) -> bytes:
    return (
        MACS
        + b"\x86\xdd"
        + struct.pack("!IHBB", 0x60000000, len(segment), protocol, 64)
        + bytes(32)
        + segment
    )


def udp(source: int, destination: int, data: bytes) -> bytes:
    return struct.pack("!HHHH", source, destination, 8 + len(data), 0) + data


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        (ipv4(17, udp(51820, 40000, b"\x01\0\0\0")), MESSAGES[1]),
        (ipv4(17, udp(40000, 51820, b"\x02\0\0\0"), options=bytes(4)), MESSAGES[2]),
        (ipv6(17, udp(51820, 51820, b"\x04\0\0\0data")), MESSAGES[4]),
        (MACS + b"\x81\x00\x00\x05" + ipv4(17, udp(51820, 1, b"\x03\0\0\0"))[12:], MESSAGES[3]),
        (ipv4(17, udp(51820, 40000, b"GET / HTTP")), "ipv4 udp 40000"),
        (ipv4(17, udp(53, 40000, b"\x01\0\0\0")), "ipv4 udp 53"),
        (ipv4(6, udp(43210, 80, b"")), "ipv4 tcp 80"),
        (ipv4(6, b"\x00", tail=185), "ipv4 tcp fragment"),
        (ipv4(1, b"\x08\0"), "ipv4 icmp"),
        (ipv4(99, b""), "ipv4 protocol 99"),
        (MACS + b"\x08\x06" + bytes(28), ARP),
        (ipv6(58, b"\x87\0"), NEIGHBOUR_DISCOVERY),
        (ipv6(0, b"\x3a\0" + bytes(6) + b"\x8f\0"), LISTENER_DISCOVERY),
        (ipv6(58, b"\x80\0"), "ipv6 icmpv6"),
        (MACS + b"\x88\x47" + bytes(8), "ethertype 0x8847"),
        (b"", "ethertype 0x0000"),
    ],
)
def test_frames_are_told_apart(frame, name):
    """WireGuard by port and message type, the link's own talk, and everything else by what it is."""
    assert classify(frame) == name


@given(st.binary(max_size=200))
def test_no_frame_is_too_strange(frame):
    """Whatever comes in from a link gets a class."""
    assert classify(frame)
    assert classify(MACS + b"\x08\x00" + frame)
    assert classify(MACS + b"\x86\xdd" + frame)


def test_a_report_tells_what_should_not_be_there():
    """Other classes than the harmless ones, and markers that were seen."""
    report = Report("eth0", markers={"secret": 0})
    report.classes.update([ARP, MESSAGES[4], "ipv4 tcp 80"])
    assert report.others == {"ipv4 tcp 80": 1}
    assert not report.clear
    report.markers["secret"] += 1
    assert report.clear
