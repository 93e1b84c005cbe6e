"""What fits through the underlay to another node, found out by echo requests that nobody may cut.

A link's MTU says nothing of the links behind it: a tunnel of a provider's takes its bytes, and a firewall
drops the message that would tell. A wire over it works for small packets and hangs with the first large one.
So the size that tunnels need is tried, before the first tunnel between two nodes; where it does not come back
while a small one does, the largest that does is searched for.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterable
from ipaddress import ip_address

import structlog

from nsmesh.core.paths import Fit
from nsmesh.datapath import netns
from nsmesh.datapath.echo_request import echo, reply_in
from nsmesh.datapath.underlay import Underlay, ipv6_beside

log = structlog.get_logger()

PATIENCE = 0.25
"""Seconds for the first echo of a path. Later ones have thrice what that took, and ROUND at least."""
ROUND = 0.03
GOOD = 60.0
"""Seconds for which what was found is good; who asks later tries it again."""
_SMALLEST = {4: 576, 6: 1280}
"""What every path must carry, by IP version."""
_AT_ONCE = 16
"""Sizes that are tried at the same time."""
_TRIES = 3
_OVERHEAD = {4: 28, 6: 48}
"""Bytes of the headers of IP and ICMP."""
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _IPV6_DONTFRAG, _PMTUDISC_PROBE = 10, 23, 62, 3


class Path:
    """The way from one address to another of the same IP version; sends echoes of a size, in a block."""

    def __init__(self, source: str, target: str, node: str = "") -> None:
        self.version = ip_address(source).version
        self._target = target
        self._number = int.from_bytes(os.urandom(2))
        self._socket = netns.call_in(node, self._opened) if node else self._opened()
        self._socket.bind((source, 0))

    def _opened(self) -> socket.socket:
        if self.version == 4:
            made = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
            made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        else:
            made = socket.socket(
                socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6
            )
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
        return made

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    async def passing(self, sizes: Iterable[int], seconds: float) -> set[int]:
        """Return which packets (sizes in bytes, with all headers) come back; ends early where all do."""
        wanted, came = set(sizes), set[int]()
        for _ in range(_TRIES):
            for size in sorted(wanted - came):
                self._send(size)
            try:
                async with asyncio.timeout(seconds / _TRIES):
                    while wanted - came:
                        came |= {await self._hear()} & wanted
            except TimeoutError:
                continue
            break
        return came

    def _send(self, size: int) -> None:
        filling = bytes(size - _OVERHEAD[self.version])
        message = echo(self.version, self._number, size & 0xFFFF, filling)
        try:
            self._socket.sendto(message, (self._target, 0))
        except OSError as error:  # larger than a link of our own, or no way there: it does not pass
            log.debug("no echo sent", target=self._target, size=size, error=str(error))

    async def _hear(self) -> int:
        """Return the size of the next answer to one of our echoes, 0 for what is none."""
        data = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
        reply = reply_in(self.version, data)
        return reply.sequence if reply is not None and reply.number == self._number else 0


async def largest(path: Path, most: int, patience: float = PATIENCE) -> int:
    """Return the largest packet, up to ``most`` bytes, that passes both ways; 0 where nothing answers."""
    least = min(_SMALLEST[path.version], most)
    began = time.monotonic()
    came = await path.passing({most}, ROUND)
    if most in came:
        return most
    if not await path.passing({least}, patience):
        return 0
    pause = max(3 * (time.monotonic() - began - ROUND), ROUND) * _TRIES
    if await path.passing({most}, pause):  # the way is long, or the first one met a sleeping neighbour
        return most
    while most - least > 1:
        step = max((most - least) // (_AT_ONCE + 1), 1)
        sizes = set(range(least + step, most, step))
        least = max(await path.passing(sizes, pause), default=least)
        most = min(most, least + step)
    return least


class PathMtus:
    """What fits to each other node; implements :class:`nsmesh.core.paths.Paths`.

    ``underlay`` is this node's own link, ``node`` the path of its namespace, empty for our own.
    """

    def __init__(self, underlay: Underlay, *, node: str = "", patience: float = PATIENCE) -> None:
        self._underlay = underlay
        self._node = node
        self._patience = patience
        self._known: dict[str, tuple[int, int, float]] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def towards(self, peer: str) -> Fit:
        """See :class:`nsmesh.core.paths.Paths`. Who asks first tries it, others wait along."""
        link = self._underlay.mtu()
        async with self._turns.setdefault(peer, asyncio.Lock()):
            path, tried, until = self._known.get(peer, (0, 0, 0.0))
            if tried != link or time.monotonic() >= until:
                path = await self._find(peer, link)
                self._known[peer] = path, link, time.monotonic() + GOOD
        return Fit(peer, path or link, link)

    def _source(self, peer: str) -> str:
        """Return our address in the family of another node's."""
        own = self._underlay.ip
        if ":" not in peer or ":" in own:
            return own
        return netns.call_in(self._node, lambda: ipv6_beside(own)) if self._node else ipv6_beside(own)

    async def _find(self, peer: str, link: int) -> int:
        before = self._known.get(peer, (0, 0, 0.0))[0]
        try:
            path = Path(self._source(peer), peer, self._node)
        except (OSError, ValueError) as error:
            log.info("the way to another node is not tried", peer=peer, error=str(error))
            return 0
        try:
            found = await largest(path, link, self._patience)
        finally:
            path.close()
        if not found:
            log.info("no echo from another node: its way is taken to be as wide as the link", peer=peer)
        elif found < link and found != before:
            log.warning(
                "the underlay is narrower than its link says: wires there get a smaller MTU",
                peer=peer,
                mtu=found,
                link=link,
                remedy="lower the MTU of the underlay's link, or correct the network behind it",
            )
        return found
