"""Whether packets go through a wire: echo requests between its addresses, from the client's namespace."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from itertools import product

import structlog

from nsmesh.datapath import netns
from nsmesh.model.messages import Connection

log = structlog.get_logger()

FIRST, AGAIN = 0.01, 0.25
"""Seconds between two echo requests for one pair of addresses: at first, and at the most."""
_ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
"""Types of an echo request and its reply."""
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}


def pairs(connection: Connection) -> Iterator[tuple[str, str]]:
    """Yield source and destination of each path that a wire's addresses make, without prefix lengths."""
    context = connection.context.ip_context
    for source, destination in product(context.src_ip_addrs, context.dst_ip_addrs):
        ends = source.partition("/")[0], destination.partition("/")[0]
        if len({":" in end for end in ends}) == 1:
            yield ends


class Echoes:
    """Says whether a wire lets packets through; called with its connection.

    ``namespace``: path of the network namespace in which the wires end, empty for this process's own.
    ``limit``: seconds for all echo requests of one look. A wire without addresses counts as alive, and so
    does one where the kernel lets nobody send echo requests: nothing is known against it.
    """

    def __init__(self, namespace: str = "", *, limit: float = 1.0) -> None:
        self._namespace = namespace
        self._limit = limit
        self._warned = False

    async def __call__(self, connection: Connection) -> bool:
        """Return whether each pair of addresses answers. Raises MeshError where the namespace is gone."""
        try:
            answers = await asyncio.gather(*(self._answers(*ends) for ends in pairs(connection)))
        except PermissionError as error:
            if not self._warned:
                self._warned = True
                log.warning(
                    "no echo requests can be sent: wires are not probed",
                    error=str(error),
                    remedy="allow this group in net.ipv4.ping_group_range, or set "
                    "NSM_LIVENESS_CHECK_ENABLED=false",
                )
            return True
        return all(answers)

    async def _answers(self, source: str, destination: str) -> bool:
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        with self._socket(family) as sock:
            try:
                sock.bind((source, 0))
                sock.connect((destination, 0))
                return await self._echo(sock, *_ECHO[family])
            except PermissionError:
                raise
            except OSError as error:  # no such address, no route: the wire is not there
                log.debug("no echo", source=source, destination=destination, error=str(error))
                return False

    def _socket(self, family: socket.AddressFamily) -> socket.socket:
        if not self._namespace:
            return _open(family)
        descriptor = netns.open_netns(self._namespace)
        try:
            with netns.inside(descriptor):
                return _open(family)
        finally:
            os.close(descriptor)

    async def _echo(self, sock: socket.socket, request: int, reply: int) -> bool:
        loop = asyncio.get_running_loop()
        end, pause, sequence = loop.time() + self._limit, FIRST, 0
        while (left := end - loop.time()) > 0:
            sequence += 1
            # the kernel fills in checksum and identifier, and gives us the replies to ours only
            await loop.sock_sendall(sock, struct.pack("!BBHHH", request, 0, 0, 0, sequence) + bytes(8))
            try:
                async with asyncio.timeout(min(pause, left)):
                    while (await loop.sock_recv(sock, 512))[0] != reply:
                        pass
            except TimeoutError:
                pause = min(2 * pause, AGAIN)
            else:
                return True
        return False


def _open(family: socket.AddressFamily) -> socket.socket:
    return socket.socket(
        family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _PROTOCOL[family]
    )
