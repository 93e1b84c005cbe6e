"""gRPC on HTTP/2, without I/O: message frames, metadata, timeouts, status texts."""

from __future__ import annotations

import base64
import binascii
import functools
import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from urllib.parse import unquote_to_bytes

from nsmesh.core.errors import Exhausted, Internal, Invalid, MeshError, Status, Unimplemented, from_status
from nsmesh.rpc.engine import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    INADEQUATE_SECURITY,
    REFUSED_STREAM,
    HeaderList,
)

Metadata = Sequence[tuple[str, str]]

HEAD = 5
"""Bytes before each message: a compression flag and a length."""

CONTENT_TYPE = b"application/grpc"
LONGEST_TEXT = 8 << 10
"""Bytes of an error text that are sent; a longer one is cut."""

_HEAD = struct.Struct(">BI")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LARGEST_TIMEOUT = 99_999_999
_RESERVED = frozenset(
    (
        b"content-type",
        b"te",
        b"user-agent",
        b"grpc-timeout",
        b"grpc-encoding",
        b"grpc-accept-encoding",
        b"grpc-message-type",
        b"grpc-status",
        b"grpc-message",
        b"grpc-status-details-bin",
    )
)
_HTTP = frozenset((b":method", b":scheme", b":path", b":authority", b":status"))
_OWN = _RESERVED | _HTTP
_NAME_BYTES = b"abcdefghijklmnopqrstuvwxyz0123456789-_."
_PLAIN = frozenset(range(0x20, 0x7F)) - {0x25}
_BY_HTTP = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}
_BY_RESET = {
    REFUSED_STREAM: Status.UNAVAILABLE,
    CANCEL: Status.CANCELLED,
    ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}


def envelope(message: bytes) -> bytes:
    """Return ``message`` with its gRPC head, uncompressed."""
    return _HEAD.pack(0, len(message)) + message


class Assembler:
    """Cuts the bytes of one stream into messages."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a message that is not whole yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that ``data`` completes; raises Exhausted, Unimplemented."""
        buffer = self._buffer
        if not buffer and len(data) >= HEAD:  # nearly always one frame is one message
            flag, size = _HEAD.unpack_from(data)
            if len(data) == HEAD + size and not flag and size <= self._limit:
                return [data[HEAD:]]
        buffer += data
        found = []
        start = 0
        while len(buffer) - start >= HEAD:
            end = start + HEAD + self._size(buffer, start)
            if len(buffer) < end:
                break
            found.append(bytes(buffer[start + HEAD : end]))
            start = end
        if start:
            del buffer[:start]
        return found

    def _size(self, buffer: bytes | bytearray, start: int) -> int:
        flag, size = _HEAD.unpack_from(buffer, start)
        if size > self._limit:
            raise Exhausted(
                f"a message of {size} bytes is larger than the {self._limit} that are taken",
                remedy="send less at once, or raise the limit of the receiver",
            )
        if flag:
            raise Unimplemented(
                "a compressed message came, and no compression was agreed on",
                remedy="send messages uncompressed",
            )
        return int(size)


def header_size(headers: HeaderList) -> int:
    """Return the size of a header list as HTTP/2 counts it, bytes."""
    return 32 * len(headers) + len(b"".join(chain.from_iterable(headers)))


def check_size(headers: HeaderList, limit: int) -> int:
    """Return the size of ``headers``, bytes; raise Exhausted when they are larger than ``limit``."""
    size = header_size(headers)
    if size > limit:
        raise Exhausted(
            f"metadata of {size} bytes is more than the {limit} that pass", remedy="send less metadata"
        )
    return size


def encode_metadata(metadata: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return the header list for ``metadata``; raises Invalid.

    The value of a key that ends in ``-bin`` is bytes, each as the character of its number (latin-1).
    """
    return [_encode_pair(key, value) for key, value in metadata]


@functools.lru_cache(maxsize=128)  # a token goes to its audience with each call
def _encode_pair(key: str, value: str) -> tuple[bytes, bytes]:
    name = key.lower().encode("latin-1", "replace")
    if not name or name in _RESERVED or name.translate(None, _NAME_BYTES):
        raise Invalid(
            f"{key!r} is no metadata key", remedy="use a-z, 0-9, '-', '_', '.', and no reserved name"
        )
    try:
        if name.endswith(b"-bin"):
            return name, base64.b64encode(value.encode("latin-1")).rstrip(b"=")
        if value.isprintable():
            return name, value.encode("ascii")
    except UnicodeEncodeError:
        pass
    raise Invalid(
        f"the value of metadata key {key!r} has characters that do not travel",
        remedy="use printable ASCII, or a key that ends in -bin for bytes",
    )


def decode_metadata(headers: HeaderList) -> tuple[tuple[str, str], ...]:
    """Return what ``headers`` hold beside the protocol's own fields, in order."""
    found: list[tuple[str, str]] = []
    for name, value in headers:
        if name in _OWN or name[:1] == b":":
            continue
        key = name.decode("latin-1")
        if key[-4:] != "-bin":
            found.append((key, value.decode("latin-1")))
            continue
        for part in value.split(b","):
            text = part.strip().rstrip(b"=")
            try:
                plain = base64.b64decode(text + b"=" * (-len(text) % 4))
            except binascii.Error:
                continue  # not base64: nothing that anybody could have meant
            found.append((key, plain.decode("latin-1")))
    return tuple(found)


def encode_timeout(seconds: float) -> bytes:
    """Return a ``grpc-timeout``: microseconds up to 99 s, milliseconds above, at least one unit."""
    micros = int(seconds * 1e6)
    if micros <= _LARGEST_TIMEOUT:
        return b"%du" % max(1, micros)
    return b"%dm" % min(int(seconds * 1e3), _LARGEST_TIMEOUT)


def decode_timeout(value: bytes) -> float:
    """Return the seconds of a ``grpc-timeout``; raises Invalid."""
    unit = _UNITS.get(value[-1:])
    digits = value[:-1]
    if unit is None or not digits.isdigit() or len(digits) > 8:
        raise Invalid(
            f"grpc-timeout {value.decode('latin-1')!r} is no time", remedy="send digits and a unit HMSmun"
        )
    return int(digits) * unit


def status_headers(error: MeshError) -> list[tuple[bytes, bytes]]:
    """Return ``grpc-status`` and ``grpc-message`` for ``error``."""
    text = str(error).encode("utf-8", "replace")
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT].decode("utf-8", "ignore").encode() + b" ..."
    escaped = b"".join(b"%c" % byte if byte in _PLAIN else b"%%%02X" % byte for byte in text)
    return [(b"grpc-status", b"%d" % error.status), (b"grpc-message", escaped)]


def _number(value: bytes, otherwise: int) -> int:
    return int(value) if value.isdigit() and len(value) <= 3 else otherwise


def outcome(headers: HeaderList) -> MeshError | None:
    """Return the error that trailers tell, or None for OK."""
    status = None
    text = ""
    for name, value in headers:
        if name == b"grpc-status":
            status = _number(value, Status.UNKNOWN)
        elif name == b"grpc-message":
            text = unquote_to_bytes(value).decode("utf-8", "replace")
    if status == 0:
        return None
    if status is None:
        return Internal(
            "the peer ended a call without a gRPC status", remedy="check that it is a gRPC server"
        )
    return from_status(status, text)


def not_grpc(headers: HeaderList) -> MeshError | None:
    """Return the error for the beginning of an answer that is not gRPC, or None when it is."""
    code, kind, status = b"", b"", False
    for name, value in headers:
        if name == b":status":
            code = value
        elif name == b"content-type":
            kind = value
        elif name == b"grpc-status":
            status = True
    if status or (code == b"200" and kind.startswith(CONTENT_TYPE)):
        return None
    number = _number(code, 0)
    return from_status(
        _BY_HTTP.get(number, Status.UNKNOWN),
        f"the peer answered HTTP status {number}, content type {kind.decode('latin-1')!r}, which is not gRPC",
    )


def reset_error(code: int, where: str) -> MeshError:
    """Return the error that a RST_STREAM from ``where`` stands for."""
    return from_status(
        _BY_RESET.get(code, Status.INTERNAL), f"{where} gave the call up (HTTP/2 error {code})"
    )
