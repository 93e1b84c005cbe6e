"""Cuts a byte stream at frames, and takes GOAWAY out: ``h2`` would end the running streams with it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from nsmesh.rpc.engine import (
    FRAME_SIZE_ERROR,
    LONGEST_FRAME,
    PROTOCOL_ERROR,
    EngineError,
    GoAway,
    goaway_frame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_SIZE = 9
GOAWAY = 0x7


class Splitter:
    """Keeps what is not yet a whole frame."""

    def __init__(self, *, preface: bool) -> None:
        self._held = bytearray()
        self._skip = len(PREFACE) if preface else 0

    def split(self, data: bytes) -> Iterator[bytes | GoAway]:
        """Yield runs of whole frames, and each GOAWAY by itself; raises EngineError for a too long one."""
        held = self._held
        held += data
        start = 0
        place = self._skip
        if place and not PREFACE.startswith(held[:place]):
            raise EngineError("it does not begin as HTTP/2 does", goaway_frame(0, PROTOCOL_ERROR))
        while len(held) >= place + HEAD_SIZE:
            size = int.from_bytes(held[place : place + 3], "big")
            end = place + HEAD_SIZE + size
            if size > LONGEST_FRAME:
                text = f"a frame of {size} bytes is longer than {LONGEST_FRAME}"
                raise EngineError(text, goaway_frame(0, FRAME_SIZE_ERROR))
            if end > len(held):
                break
            if held[place + 3] == GOAWAY and size >= 8:
                if place > start:
                    yield bytes(held[start:place])
                stream, last, code = struct.unpack_from(">III", held, place + HEAD_SIZE - 4)
                if stream & 0x7FFFFFFF:
                    raise EngineError("a GOAWAY came on a stream of its own", goaway_frame(0, PROTOCOL_ERROR))
                yield GoAway(last & 0x7FFFFFFF, code)
                start = end
            place = end
        if start < place <= len(held):
            yield bytes(held[start:place])
            start = place
        if start:
            self._skip = 0
            del held[:start]
