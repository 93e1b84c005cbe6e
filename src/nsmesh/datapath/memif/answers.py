"""What an endpoint without a kernel behind it answers: ARP, neighbour discovery, and echo requests."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import ip_interface

_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
_ARP_REQUEST = b"\x00\x01\x08\x00\x06\x04\x00\x01"
_ARP_REPLY = b"\x00\x01\x08\x00\x06\x04\x00\x02"
_ICMPV6 = 58
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOLICITED_OVERRIDE = 0x60000000


def checksum(data: bytes) -> int:
    """Return the Internet checksum of ``data``."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def icmpv6(source: bytes, destination: bytes, hops: int, message: bytes) -> bytes:
    """Return an IPv6 packet with an ICMPv6 message, whose checksum is filled in; addresses are packed."""
    pseudo = source + destination + struct.pack("!II", len(message), _ICMPV6)
    total = checksum(pseudo + message).to_bytes(2, "big")
    head = struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, hops)
    return head + source + destination + message[:2] + total + message[4:]


class Answers:
    """Answers for ``addresses`` (with or without a prefix length) at ``mac``; called with an Ethernet frame.

    Returns the frame to send back, or None: what is cut short, broken in pieces, or for others is dropped.
    """

    def __init__(self, mac: str, addresses: Iterable[str]) -> None:
        self._mac = bytes.fromhex(mac.replace(":", ""))
        self._addresses = {ip_interface(address).ip.packed for address in addresses}

    def __call__(self, frame: bytes) -> bytes | None:
        """Return the answer to a frame."""
        if len(frame) < 34 or not (frame[:6] == self._mac or frame[0] & 1):
            return None
        kind, body = frame[12:14], frame[14:]
        if kind == _ARP:
            answer = self._arp(body)
        elif kind == _IPV4:
            answer = self._ipv4(body)
        else:
            answer = self._ipv6(body) if kind == _IPV6 else None
        return None if answer is None else frame[6:12] + self._mac + kind + answer

    def _arp(self, body: bytes) -> bytes | None:
        if len(body) < 28 or body[:8] != _ARP_REQUEST or body[24:28] not in self._addresses:
            return None
        return _ARP_REPLY + self._mac + body[24:28] + body[8:18]

    def _ipv4(self, body: bytes) -> bytes | None:
        header = (body[0] & 15) * 4
        (size, _, piece) = struct.unpack_from("!HHH", body, 2)
        whole = header >= 20 and header + 8 <= size <= len(body) and not piece & 0x3FFF
        if body[0] >> 4 != 4 or not whole or body[9] != 1 or body[16:20] not in self._addresses:
            return None
        if body[header] != 8:
            return None
        message = b"\0\0\0\0" + body[header + 4 : size]
        message = message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
        bare = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0, 64, 1, 0)
        bare += body[16:20] + body[12:16]
        return bare[:10] + checksum(bare).to_bytes(2, "big") + bare[12:] + message

    def _ipv6(self, body: bytes) -> bytes | None:
        if len(body) < 48 or body[0] >> 4 != 6 or body[6] != _ICMPV6:
            return None
        (size,) = struct.unpack_from("!H", body, 4)
        message = body[40 : 40 + size]
        if len(message) < 8 or len(message) < size:
            return None
        if message[0] == 128 and body[24:40] in self._addresses:
            return icmpv6(body[24:40], body[8:24], 64, b"\x81\0\0\0" + message[4:])
        if message[0] == _SOLICITATION and len(message) >= 24 and message[8:24] in self._addresses:
            if not any(body[8:24]):
                return None  # somebody who has no address yet looks whether his is free
            told = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, _SOLICITED_OVERRIDE)
            return icmpv6(message[8:24], body[8:24], 255, told + message[8:24] + b"\x02\x01" + self._mac)
        return None
