"""Cuts a byte stream at frames, and takes GOAWAY out: ``h2`` would end the running streams with it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from nsmesh.rpc.engine import GoAway

PREFACE_SIZE = 24
HEAD_SIZE = 9
LONGEST_FRAME = 16384
GOAWAY = 0x7


class Splitter:
    """Keeps what is not yet a whole frame."""

    def __init__(self, *, preface: bool) -> None:
        self._held = bytearray()
        self._skip = PREFACE_SIZE if preface else 0

    def split(self, data: bytes) -> Iterator[bytes | GoAway]:
        """Yield runs of whole frames, and each GOAWAY by itself.

        A frame that is too long passes uncut, so that the engine can refuse it.
        """
        held = self._held
        held += data
        start = 0
        place = self._skip
        while len(held) >= place + HEAD_SIZE:
            size = int.from_bytes(held[place : place + 3], "big")
            end = place + HEAD_SIZE + size
            if size > LONGEST_FRAME:
                place = len(held)
                break
            if end > len(held):
                break
            if held[place + 3] == GOAWAY and size >= 8:
                if place > start:
                    yield bytes(held[start:place])
                last, code = struct.unpack_from(">II", held, place + HEAD_SIZE)
                yield GoAway(last & 0x7FFFFFFF, code)
                start = end
            place = end
        if place > start and len(held) >= place:
            yield bytes(held[start:place])
            start = place
        if start:
            self._skip = 0
            del held[:start]
