"""An ICMP echo request through one interface, as a question of :mod:`nsmesh.datapath.probe`."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address

_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_HEADER = struct.Struct("!BBHHH")


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
        kind = _REQUEST[self.target.version]
        message = _HEADER.pack(kind, 0, 0, 1, 1) + self._token
        if self.target.version == 4:  # for IPv6 the kernel fills the checksum in
            message = _HEADER.pack(kind, 0, checksum(message), 1, 1) + self._token
        sock.sendto(message, (str(self.target), 0))

    def answered(self, data: bytes) -> bool:
        """Whether what came in is the reply to this very request."""
        start = (data[0] & 0x0F) * 4 if self.target.version == 4 and data else 0
        if len(data) < start + _HEADER.size or data[start] != _REPLY[self.target.version]:
            return False
        return data[start + _HEADER.size :] == self._token


def checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
