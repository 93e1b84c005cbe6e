"""Echoes to other nodes by way of the underlay: one socket for all of them.

The kernel of the other node answers, whatever its forwarder does. The kernel here notes when an answer came,
so answers are read when somebody asks, and wake nobody.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from ipaddress import ip_address
from typing import NamedTuple

import structlog

from nsmesh.datapath import netns
from nsmesh.datapath.echo_request import echo, reply_in

log = structlog.get_logger()

_CONTENT = struct.Struct("!16sq")
_STAMP = struct.Struct("=qq")
_SO_TIMESTAMPNS = 35
_SOL_RAW, _ICMP_FILTER, _ICMP6_FILTER = 255, 1, 1
_ROOM = 256
"""Bytes of an answer that matter; longer ones are somebody else's."""


class Answer(NamedTuple):
    """Which node answered which echo, and how many seconds that took."""

    node: str
    sequence: int
    took: float


class NodeEchoes:
    """Sends from ``source``, this node's address; ``node`` is the path of its namespace, empty for our own.

    An answer counts with the secret that went out alone, so nobody who does not see the echoes can
    answer for a node. Whoever is on the way can, as well as drop them.
    """

    def __init__(self, source: str, node: str = "") -> None:
        self._source = source
        self._version = ip_address(source).version
        self._node = node
        self._number = int.from_bytes(os.urandom(2))
        self._secret = os.urandom(16)
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Begin; raises OSError where the kernel or the rights of this process do not allow it."""
        self._socket = netns.call_in(self._node, self._opened) if self._node else self._opened()

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def reaches(self, node: str) -> bool:
        """Whether an address is another node's, and of our IP version."""
        try:
            return node != self._source and ip_address(node).version == self._version
        except ValueError:
            return False

    def send(self, node: str, sequence: int) -> None:
        """Send an echo; one that cannot go out gets no answer, which says the same."""
        if self._socket is None:
            return
        content = _CONTENT.pack(self._secret, time.time_ns())
        try:
            self._socket.sendto(echo(self._version, self._number, sequence, content), (node, 0))
        except OSError as error:
            log.debug("no echo sent", target=node, error=str(error))

    def heard(self) -> list[Answer]:
        """Return what has come since the last time."""
        found: list[Answer] = []
        while self._socket is not None:
            try:
                data, control, _, sender = self._socket.recvmsg(_ROOM, 64)
            except BlockingIOError:
                break
            except OSError as error:  # what another host said of an echo of ours
                log.debug("no answer", error=str(error))
                continue
            reply = reply_in(self._version, data)
            if reply is None or reply.number != self._number or len(reply.content) != _CONTENT.size:
                continue
            secret, sent = _CONTENT.unpack(reply.content)
            if secret == self._secret:
                came = next((_nanoseconds(item[2]) for item in control), time.time_ns())
                found.append(Answer(sender[0].partition("%")[0], reply.sequence, max(came - sent, 0) / 1e9))
        return found

    def _opened(self) -> socket.socket:
        if self._version == 4:
            family, protocol = socket.AF_INET, socket.IPPROTO_ICMP
            level, option, wanted = _SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << 0) & 0xFFFF_FFFF)
        else:
            family, protocol = socket.AF_INET6, socket.IPPROTO_ICMPV6
            blocked = [0xFFFF_FFFF] * 8
            blocked[129 >> 5] &= ~(1 << (129 & 31))
            level, option, wanted = socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocked)
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(level, option, wanted)
            made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            made.bind((self._source, 0))
        except OSError:
            made.close()
            raise
        return made


def _nanoseconds(stamp: bytes) -> int:
    seconds, rest = _STAMP.unpack_from(stamp)
    return int(seconds * 1_000_000_000 + rest)
