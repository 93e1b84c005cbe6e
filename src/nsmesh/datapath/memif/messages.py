"""Memif's control messages, version 2.0: 128 bytes each, with at most one descriptor. Pure; little endian."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

VERSION = 0x0200
SIZE = 128
"""Bytes of each message, whatever it says."""
ACK, HELLO, INIT, ADD_REGION, ADD_RING, CONNECT, CONNECTED, DISCONNECT = range(1, 9)
ETHERNET_MODE = 0
CLIENT_TO_SERVER = 1
"""Flag of a ring that the client fills."""

_TYPE = struct.Struct("<H")
_HELLO = struct.Struct("<32sHHHHHB")
_INIT = struct.Struct("<HIB24s32s")
_REGION = struct.Struct("<HQ")
_RING = struct.Struct("<HHHIBH")
_NAME = struct.Struct("<32s")
_DISCONNECT = struct.Struct("<I96s")


class ProtocolError(ValueError):
    """The peer said what it must not say; its wire ends, and nothing else does."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a server can do: the highest index of regions and rings, and log2 of a ring's slots."""

    name: str
    max_region: int = 0
    max_ring: int = 0
    max_log2_ring: int = 14
    min_version: int = VERSION
    max_version: int = VERSION


@dataclass(frozen=True, slots=True)
class Init:
    """What a client wants: the interface's number on this socket."""

    id: int = 0
    name: str = ""
    mode: int = ETHERNET_MODE
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class AddRegion:
    """Memory of the client, of ``size`` bytes; its descriptor comes along."""

    index: int
    size: int


@dataclass(frozen=True, slots=True)
class AddRing:
    """A ring in a region; the descriptor of its interrupts comes along."""

    index: int
    region: int
    offset: int
    log2_size: int
    to_server: bool
    private_size: int = 0


@dataclass(frozen=True, slots=True)
class Bare:
    """ACK, CONNECT or CONNECTED."""

    type: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The end, and why."""

    reason: str
    code: int = 0


Message = Hello | Init | AddRegion | AddRing | Bare | Disconnect


def encode(message: Message) -> bytes:
    """Return the 128 bytes of a message."""
    match message:
        case Hello():
            versions = (message.min_version, message.max_version)
            rings = (message.max_ring, message.max_ring, message.max_log2_ring)
            kind, body = (
                HELLO,
                _HELLO.pack(_padded(message.name), *versions, message.max_region, *rings),
            )
        case Init():
            kind = INIT
            body = _INIT.pack(message.version, message.id, message.mode, b"", _padded(message.name))
        case AddRegion():
            kind, body = ADD_REGION, _REGION.pack(message.index, message.size)
        case AddRing():
            kind = ADD_RING
            flags = CLIENT_TO_SERVER if message.to_server else 0
            where = (message.index, message.region, message.offset, message.log2_size)
            body = _RING.pack(flags, *where, message.private_size)
        case Disconnect():
            kind, body = DISCONNECT, _DISCONNECT.pack(message.code, _padded(message.reason, 95))
        case Bare():
            kind, body = message.type, b"" if message.type == ACK else _NAME.pack(_padded(message.name))
    return (_TYPE.pack(kind) + body).ljust(SIZE, b"\0")


def decode(data: bytes) -> Message:
    """Return what 128 bytes say; raises :class:`ProtocolError` for any that are no message."""
    if len(data) != SIZE:
        raise ProtocolError(f"a message of {len(data)} bytes, and all have {SIZE}")
    (kind,) = _TYPE.unpack_from(data)
    reader = _READERS.get(kind)
    if reader is None:
        raise ProtocolError(f"a message of the unknown type {kind}")
    return reader(memoryview(data)[_TYPE.size :])


def _hello(body: memoryview) -> Hello:
    name, low, high, region, to_client, to_server, log2 = _HELLO.unpack_from(body)
    return Hello(_text(name), region, min(to_client, to_server), log2, low, high)


def _init(body: memoryview) -> Init:
    version, number, mode, _, name = _INIT.unpack_from(body)
    return Init(number, _text(name), mode, version)


def _ring(body: memoryview) -> AddRing:
    flags, index, region, offset, log2, private = _RING.unpack_from(body)
    return AddRing(index, region, offset, log2, bool(flags & CLIENT_TO_SERVER), private)


def _disconnect(body: memoryview) -> Disconnect:
    code, reason = _DISCONNECT.unpack_from(body)
    return Disconnect(_text(reason), code)


_READERS: dict[int, Callable[[memoryview], Message]] = {
    ACK: lambda _: Bare(ACK),
    HELLO: _hello,
    INIT: _init,
    ADD_REGION: lambda body: AddRegion(*_REGION.unpack_from(body)),
    ADD_RING: _ring,
    CONNECT: lambda body: Bare(CONNECT, _text(_NAME.unpack_from(body)[0])),
    CONNECTED: lambda body: Bare(CONNECTED, _text(_NAME.unpack_from(body)[0])),
    DISCONNECT: _disconnect,
}


def _padded(text: str, limit: int = 31) -> bytes:
    return text.encode(errors="replace")[:limit]


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode(errors="replace")
