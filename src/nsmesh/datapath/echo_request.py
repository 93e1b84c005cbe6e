"""ICMP echo requests; one through one interface, as a question of :mod:`nsmesh.datapath.probe`."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from nsmesh.datapath.memif.answers import checksum

_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
"""Types, by IP version."""
_HEADER = struct.Struct("!BBHHH")


def echo(version: int, number: int, sequence: int, content: bytes) -> bytes:
    """Return an echo request. Its checksum is filled in for IPv4; for IPv6 the kernel does that."""
    message = _HEADER.pack(_REQUEST[version], 0, 0, number, sequence) + content
    if version == 6:
        return message
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


class Reply(NamedTuple):
    """What came back: the number, sequence and content of the request."""

    number: int
    sequence: int
    content: bytes


def reply_in(version: int, data: bytes) -> Reply | None:
    """Return the echo reply in what a raw socket heard, or None."""
    start = (data[0] & 0x0F) * 4 if version == 4 and data else 0
    if len(data) < start + _HEADER.size:
        return None
    kind, _, _, number, sequence = _HEADER.unpack_from(data, start)
    return Reply(number, sequence, data[start + _HEADER.size :]) if kind == _REPLY[version] else None


class EchoRequest:
    """Are you there? For interfaces without link addresses."""

    def __init__(self, source: object, target: IPv4Address | IPv6Address) -> None:
        if not isinstance(source, type(target)):
            raise ValueError(f"{source} and {target} are of different IP versions")  # noqa: TRY004 - of the text
        self.source = source
        self.target = target
        self._token = os.urandom(16)

    def open(self, interface: str) -> socket.socket:
        """Return a raw socket that is bound to the interface and to the source; raises OSError."""
        if self.target.version == 4:
            family, protocol = socket.AF_INET, socket.IPPROTO_ICMP
        else:
            family, protocol = socket.AF_INET6, socket.IPPROTO_ICMPV6
        sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            sock.bind((str(self.source), 0))
        except OSError:
            sock.close()
            raise
        return sock

    def send(self, sock: socket.socket) -> None:
        """Ask once."""
        sock.sendto(echo(self.target.version, 1, 1, self._token), (str(self.target), 0))

    def answered(self, data: bytes) -> bool:
        """Whether what came in is the reply to this very request."""
        reply = reply_in(self.target.version, data)
        return reply is not None and reply.content == self._token
