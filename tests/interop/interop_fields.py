"""Messages as plain data, in the words of the recordings; and protobuf's wire format, walked by hand."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def plain(message: Message) -> dict[str, Any]:
    """Return what is on the wire: proto names, enums by name, no defaults, times as seconds and nanos."""
    if isinstance(message, Timestamp):
        return {"seconds": message.seconds, "nanos": message.nanos}
    out: dict[str, Any] = {}
    for field, value in message.ListFields():
        if is_map(field):
            inner = field.message_type.fields_by_name["value"]
            out[field.name] = {key: _value(inner, value[key]) for key in value}
        elif field.is_repeated:
            out[field.name] = [_value(field, item) for item in value]
        else:
            out[field.name] = _value(field, value)
    return out


def is_map(field: FieldDescriptor) -> bool:
    """Return whether a field is a map."""
    kind = field.message_type
    return bool(field.is_repeated and kind is not None and kind.GetOptions().map_entry)


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return plain(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return field.enum_type.values_by_number[value].name
    return value


def with_sorted_maps(raw: bytes, kind: Descriptor) -> bytes:
    """Return a message's bytes with the entries of each map sorted by key; all else as it was.

    Walks the bytes by itself, so that it can judge what a protobuf library makes of them.
    """
    pieces: list[tuple[int, bytes, bytes]] = []  # field number, sort key, bytes
    position = 0
    while position < len(raw):
        start = position
        tag, position = _varint(raw, position)
        field = kind.fields_by_number[tag >> 3]
        if tag & 7 == 2:
            size, position = _varint(raw, position)
            content = raw[position : position + size]
            position += size
            if field.message_type is not None:
                content = with_sorted_maps(content, field.message_type)
                piece = _encode(tag) + _encode(len(content)) + content
            else:
                piece = raw[start:position]
            key = _map_key(content) if is_map(field) else b""
        else:
            assert tag & 7 == 0, f"wire type {tag & 7} is not in use here"
            _, position = _varint(raw, position)
            piece, key = raw[start:position], b""
        pieces.append((field.number, key, piece))
    assert [number for number, *_ in pieces] == sorted(number for number, *_ in pieces)
    return b"".join(piece for _, _, piece in sorted(pieces, key=lambda piece: piece[:2]))


def _map_key(entry: bytes) -> bytes:
    if not entry or entry[0] != 0x0A:
        return b""
    size, position = _varint(entry, 1)
    return entry[position : position + size]


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position


def _encode(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))
