"""Flows of a switch over OpenFlow 1.3: the four messages that wires need, and the connection they go by.

A flow is added where it is new and replaced where its match is there already: all of it is idempotent.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from nsmesh.core.errors import MeshError, Refused, Unavailable
from nsmesh.datapath.ovs_matches import OXM_IN_PORT, PASSES, REFUSES, Match, encoded
from nsmesh.model.messages import ETHERNET

HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, FLOW_MOD, BARRIER_REQUEST, BARRIER_REPLY = 0, 1, 2, 3, 14, 20, 21
MULTIPART_REQUEST, MULTIPART_REPLY, OFPMP_FLOW = 18, 19, 1
SET_CONFIG, FLOW_REMOVED = 9, 11
VERSION = 4
OFPFC_ADD, OFPFC_DELETE = 0, 3
OFPFF_SEND_FLOW_REM = 1
OFPTT_ALL, OFP_NO_BUFFER, OFPP_ANY, OFPG_ANY = 0xFF, 0xFFFF_FFFF, 0xFFFF_FFFF, 0xFFFF_FFFF
OFPIT_APPLY_ACTIONS, OFPAT_OUTPUT = 4, 0
EVERY_BIT = 0xFFFF_FFFF_FFFF_FFFF
PRIORITY = 100
REFUSAL = {kind: 50 - at for at, kind in enumerate(REFUSES)}
"""Priorities of the flows that drop, by what they drop: below those that let pass, and by them told apart."""

_HEADER = struct.Struct("!BBHI")
_FLOW = struct.Struct("!QQBBHHHIIIH2x")
_OUTPUT = struct.Struct("!HH4xHHIH6x")
_STATS_REQUEST = struct.Struct("!HH4xB3xII4xQQ")
_STATS = struct.Struct("!HBxIIHHHH4xQQQ")
_PATIENCE = 5.0
"""Seconds that a switch may take to answer."""


def cookie_of(wire_id: str) -> int:
    """Return the mark of a wire's flows: 64 bits that follow from its id."""
    return int.from_bytes(hashlib.sha256(wire_id.encode()).digest()[:8])


def message(kind: int, body: bytes = b"", xid: int = 1) -> bytes:
    """Return one message with its header."""
    return _HEADER.pack(VERSION, kind, _HEADER.size + len(body), xid) + body


def forward(cookie: int, source: int, target: int, match: Match = ()) -> bytes:
    """Return the flow that sends those frames of port ``source`` that match out of port ``target``."""
    actions = _OUTPUT.pack(OFPIT_APPLY_ACTIONS, 24, OFPAT_OUTPUT, 16, target, 0)
    return _new(cookie, PRIORITY, ((OXM_IN_PORT, source), *match), actions)


def refuse(cookie: int, source: int, kind: str, match: Match) -> bytes:
    """Return the flow that drops, and counts, frames of a kind (see ``REFUSES``) that nothing lets pass."""
    return _new(cookie, REFUSAL[kind], ((OXM_IN_PORT, source), *match))


def _new(cookie: int, priority: int, match: Match, actions: bytes = b"") -> bytes:
    flow = _FLOW.pack(
        cookie, 0, 0, OFPFC_ADD, 0, 0, priority, OFP_NO_BUFFER, OFPP_ANY, OFPG_ANY, OFPFF_SEND_FLOW_REM
    )
    return message(FLOW_MOD, flow + encoded(match) + actions)


def forget(cookie: int) -> bytes:
    """Return the request that deletes all flows of a mark."""
    flow = _FLOW.pack(
        cookie, EVERY_BIT, OFPTT_ALL, OFPFC_DELETE, 0, 0, 0, OFP_NO_BUFFER, OFPP_ANY, OFPG_ANY, 0
    )
    return message(FLOW_MOD, flow + encoded(()))


def both_ways(owner: str, one: int, other: int, payload: str = ETHERNET) -> list[bytes]:
    """Return the flows of a wire between two ports: they let frames of its payload pass."""
    cookie = cookie_of(owner)
    passing = [
        forward(cookie, source, target, match)
        for source, target in ((one, other), (other, one))
        for match in PASSES[payload]
    ]
    if payload == ETHERNET:
        return passing
    return passing + [
        refuse(cookie, source, kind, match)
        for source in (one, other)
        for kind, matches in REFUSES.items()
        for match in matches
    ]


def counting(owner: str) -> bytes:
    """Return the question what the flows of a wire have counted."""
    body = _STATS_REQUEST.pack(
        OFPMP_FLOW, 0, OFPTT_ALL, OFPP_ANY, OFPG_ANY, cookie_of(owner), EVERY_BIT
    ) + encoded(())
    return message(MULTIPART_REQUEST, body)


def refused(answers: Iterable[bytes]) -> dict[int, Counter[str]]:
    """Return what answers to :func:`counting` tell of refused frames: kinds that there were, by cookie."""
    kinds = {priority: kind for kind, priority in REFUSAL.items()}
    found: dict[int, Counter[str]] = {}
    for answer in answers:
        at = 8
        while at + _STATS.size <= len(answer):
            length, _, _, _, priority, _, _, _, cookie, packets, _ = _STATS.unpack_from(answer, at)
            if priority in kinds and packets:
                found.setdefault(cookie, Counter())[kinds[priority]] += packets
            at += max(length, _STATS.size)
    return found


class Connection:
    """A connection to the switch at ``socket`` that is kept: it is slow to see new ones."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    async def send(self, messages: Iterable[bytes]) -> list[bytes]:
        """Send requests and wait until the switch has done them; return what it told (multipart replies).

        Raises Unavailable where it does not answer, Refused with the type and code of its error.
        """
        requests = b"".join(messages) + message(BARRIER_REQUEST)
        try:
            async with asyncio.timeout(_PATIENCE), self._turn:
                try:
                    return await self._exchange(requests)
                except (OSError, EOFError):
                    # the switch was started anew; what is sent twice does no harm
                    return await self._exchange(requests)
        except MeshError:
            raise
        except (OSError, EOFError, TimeoutError) as error:
            raise Unavailable(
                f"the switch does not answer at {self._socket}: {error or 'nothing came in time'}",
                remedy="see the log of ovs-vswitchd in its run directory",
            ) from error

    async def _exchange(self, requests: bytes) -> list[bytes]:
        try:
            if self._kept is None:
                self._kept = await asyncio.open_unix_connection(self._socket)
                self._kept[1].write(message(HELLO))
            reader, writer = self._kept
            writer.write(requests)
            return await _barrier(reader, writer)
        except BaseException:
            self.close()  # answers that nobody waited for would be taken for others
            raise

    def close(self) -> None:
        """Let go of the connection; the next request makes another one."""
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None


def taken(waiting: bytearray) -> list[tuple[int, bytes, int]]:
    """Take the whole messages from the front of what came: of each its type, what it holds, its number."""
    found = []
    while len(waiting) >= _HEADER.size:
        _, kind, length, xid = _HEADER.unpack_from(waiting)
        length = max(length, _HEADER.size)
        if len(waiting) < length:
            break
        found.append((kind, bytes(waiting[_HEADER.size : length]), xid))
        del waiting[:length]
    return found


async def _barrier(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[bytes]:
    told: list[bytes] = []
    while True:
        _, kind, length, xid = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        body = await reader.readexactly(max(0, length - _HEADER.size))
        if kind == BARRIER_REPLY:
            return told
        if kind == MULTIPART_REPLY:
            told.append(body)
        if kind == ECHO_REQUEST:
            writer.write(message(ECHO_REPLY, body, xid))
        elif kind == ERROR:
            kind, code = struct.unpack_from("!HH", body)
            raise Refused(
                f"the switch refused a flow with OpenFlow error type {kind}, code {code}",
                remedy="see the log of ovs-vswitchd; OpenFlow 1.3 is needed",
            )


async def until_end(socket: Path) -> None:
    """Return when the switch ends a connection of its bridge, or takes none."""
    with suppress(OSError, EOFError, MeshError):
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            writer.write(message(HELLO))
            while True:
                await _barrier(reader, writer)
        finally:
            writer.close()
