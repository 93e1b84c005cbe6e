"""For tests of payloads: frames made by hand, sent and received byte for byte at the ends of a wire."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import vxlan_lab

from nsmesh.datapath import netns

A, B = (bytes.fromhex(mac.replace(":", "")) for mac in (vxlan_lab.NEAR_MAC, vxlan_lab.FAR_MAC))
AWAKE = bytes.fromhex("0200000000aa")
ETH_P_ALL = 0x0003
_IP4 = IPv4Address("10.7.0.1").packed + IPv4Address("10.7.0.2").packed
_IP6 = IPv6Address("fd07::1").packed + IPv6Address("fd07::2").packed
_FILL = b"nsmesh payload"


def v4(protocol: int, data: bytes, *, fragment: int = 0, options: bytes = b"") -> bytes:
    """Return an IPv4 packet; ``fragment``: flags and offset, as they stand in the header."""
    size = 20 + len(options)
    head = [0x40 | size // 4, 0, size + len(data), 7, fragment, 64, protocol, 0]
    whole = struct.pack(">BBHHHBBH", *head) + _IP4 + options
    total = sum(struct.unpack(f">{size // 2}H", whole))
    total = (total & 0xFFFF) + (total >> 16)
    head[7] = 0xFFFF - (total + (total >> 16) & 0xFFFF)
    return struct.pack(">BBHHHBBH", *head) + _IP4 + options + data


def v6(following: int, data: bytes) -> bytes:
    return struct.pack(">IHBB", 6 << 28, len(data), following, 64) + _IP6 + data


def v6_fragment(following: int, field: int, data: bytes) -> bytes:
    return v6(44, struct.pack(">BBHI", following, 0, field, 7) + data)


def udp(source: int, destination: int) -> bytes:
    return struct.pack(">HHHH", source, destination, 8 + len(_FILL), 0) + _FILL


ARP = bytes.fromhex("0001080006040001") + A + _IP4[:4] + bytes(6) + _IP4[4:]
LABEL = struct.pack(">I", 100 << 12 | 1 << 8 | 64)
ECHO = bytes.fromhex("0800f7ff00000000")

FRAMES: dict[str, tuple[int, bytes]] = {
    "IPv4 UDP": (0x0800, v4(17, udp(5000, 5001))),
    "IPv4 echo": (0x0800, v4(1, ECHO)),
    "IPv6 UDP": (0x86DD, v6(17, udp(5000, 5001))),
    "ARP": (0x0806, ARP),
    "neighbour solicitation": (0x86DD, v6(58, bytes([135, 0, 0, 0]) + bytes(20))),
    "echo of IPv6": (0x86DD, v6(58, bytes([128, 0, 0, 0]) + bytes(20))),
    "MPLS": (0x8847, LABEL + _FILL),
    "MPLS multicast": (0x8848, LABEL + _FILL),
    "MPLS without a label": (0x8847, b"\0\0"),
    "L2TPv3 over IPv4": (0x0800, v4(115, struct.pack(">I", 77) + _FILL)),
    "L2TPv3 over IPv6": (0x86DD, v6(115, struct.pack(">I", 77) + _FILL)),
    "L2TP to UDP 1701": (0x0800, v4(17, udp(40000, 1701))),
    "L2TP from UDP 1701": (0x0800, v4(17, udp(1701, 40000))),
    "L2TP to UDP 1701, IP options": (0x0800, v4(17, udp(40000, 1701), options=b"\x01\x01\x01\x00")),
    "L2TP to UDP 1701, IPv6": (0x86DD, v6(17, udp(40000, 1701))),
    "first fragment of L2TP over IP": (0x0800, v4(115, bytes(24), fragment=0x2000)),
    "later fragment of L2TP over IP": (0x0800, v4(115, bytes(24), fragment=3)),
    "first fragment of UDP 1701": (0x0800, v4(17, udp(40000, 1701), fragment=0x2000)),
    "first fragment of other UDP": (0x0800, v4(17, udp(40000, 1702), fragment=0x2000)),
    "later fragment of UDP": (0x0800, v4(17, bytes(24), fragment=3)),
    "first fragment of UDP 1701, IPv6": (0x86DD, v6_fragment(17, 1, udp(40000, 1701))),
    "first fragment of other UDP, IPv6": (0x86DD, v6_fragment(17, 1, udp(40000, 1702))),
    "later fragment of UDP, IPv6": (0x86DD, v6_fragment(17, 24, bytes(24))),
    "fragment of L2TP over IPv6": (0x86DD, v6_fragment(115, 24, bytes(24))),
    "IPv6 with options": (0x86DD, v6(60, bytes([115, 0, 1, 4, 0, 0, 0, 0]) + bytes(8))),
    "tagged IPv4": (0x8100, struct.pack(">HH", 7, 0x0800) + v4(115, bytes(24))),
    "QinQ": (0x88A8, struct.pack(">HHHH", 7, 0x8100, 8, 0x0800) + v4(115, bytes(24))),
    "LLDP": (0x88CC, _FILL),
    "unknown EtherType": (0x9999, _FILL),
    "802.3 with a length": (0x0020, b"\xaa\xaa\x03" + _FILL),
    "runt": (0x0800, b""),
    "IPv4 in name only": (0x0800, b"\x60" + bytes(40)),
    "IPv6 in name only": (0x86DD, b"\x45" + bytes(40)),
    "half an IPv4 header": (0x0800, b"\x45" + bytes(9)),
}
"""EtherType and what follows it, by name."""

_ND = {"neighbour solicitation"}


def _is_ip(kind: int, data: bytes) -> bool:
    version, size = {0x0800: (4, 20), 0x86DD: (6, 40)}.get(kind, (0, 0))
    return kind == 0x0806 or (version > 0 and len(data) >= size and data[0] >> 4 == version)


def _is_mpls(kind: int, data: bytes) -> bool:
    return kind in {0x8847, 0x8848} and len(data) >= 4


def passes(payload: str, name: str) -> bool:
    """Say whether a wire of a payload shall carry a frame: the rules written a second time."""
    kind, data = FRAMES[name]
    if payload == "ETHERNET":
        return True
    if payload != "L2TP":
        return (_is_ip if payload == "IP" else _is_mpls)(kind, data)
    words = ("L2TP", "UDP 1701", "later fragment", "ARP")
    return name in _ND or any(word in name for word in words)


def number_of(name: str) -> int:
    return list(FRAMES).index(name)


@contextlib.contextmanager
def ears(*ends: tuple[str, str]) -> Iterator[list[socket.socket]]:
    """Yield a packet socket at each end (namespace and interface)."""
    with contextlib.ExitStack() as stack:
        found = []
        for space, name in ends:
            made = netns.call_in(space, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
            stack.enter_context(made)
            netns.call_in(space, lambda: made.bind((name, ETH_P_ALL)))  # noqa: B023 - called now
            found.append(made)
        yield found


def frame(name: str, source: bytes, destination: bytes) -> bytes:
    kind, data = FRAMES[name]
    return destination + source + struct.pack(">H", kind) + data


def send(ear: socket.socket, data: bytes) -> None:
    """Send; a filter on the way out of a tunnel is told as ENOBUFS, and that is no failure here."""
    with contextlib.suppress(OSError):
        ear.send(data)


def awaken(near: socket.socket, far: socket.socket, name: str) -> None:
    """Send a frame each way until it comes: the kernel may lose the first ones through a new link."""
    for out, into in ((near, far), (far, near)):
        limit = time.monotonic() + 5
        while time.monotonic() < limit:
            send(out, frame(name, AWAKE, B))
            if heard(into, 1, AWAKE, 0.1):
                break


def heard(ear: socket.socket, wanted: int, source: bytes, seconds: float = 2.0) -> list[bytes]:
    """Return frames from a MAC until ``wanted`` are there, and for a moment longer; tags are put back."""
    ear.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: the kernel takes the outer tag off
    found: list[bytes] = []
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        ear.settimeout(max(limit - time.monotonic(), 0.01))
        try:
            data, more, _, _ = ear.recvmsg(65536, 256)
        except TimeoutError:
            break
        for level, kind, value in more:
            status, _, _, _, _, tag, protocol = struct.unpack("=IIIHHHH", value)
            if (level, kind) == (263, 8) and status & 0x10:
                data = data[:12] + struct.pack(">HH", protocol if status & 0x40 else 0x8100, tag) + data[12:]
        if data[6:12] == source:
            found.append(data)
        if len(found) == wanted:
            limit = min(limit, time.monotonic() + 0.05)
    return found
