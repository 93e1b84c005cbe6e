"""Numbered packets, and what their arrivals say of a wire: lost, doubled, and the longest silence."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PACKET = struct.Struct("!QQ")
"""What a packet holds: its number, from 0, and when it was sent (nanoseconds since 1970)."""
RECORD = struct.Struct("=QQ")
"""What is written down of an arrival: its number, and when the kernel took it (nanoseconds since 1970)."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of a stream. ``lost``: sent and in no record. ``gap``: nanoseconds of the longest silence.

    It begins when the next packet was sent: that a sender itself was late is no silence of the wire.
    ``gap_end`` is the arrival that ended the silence, 0 where fewer than two packets came.
    """

    sent: int
    lost: int
    duplicates: int
    gap: int
    gap_end: int


def tally(sent: int, arrivals: Sequence[tuple[int, int]], pauses: Mapping[int, int]) -> Tally:
    """Return what became of packets 0 to ``sent`` - 1.

    ``arrivals``: number and time of each. ``pauses``: by number, nanoseconds that
    the sender was late with it.
    """
    seen = {number for number, _ in arrivals if number < sent}
    inside = sum(number < sent for number, _ in arrivals)
    longest, end = 0, 0
    in_time = sorted(arrivals, key=lambda one: one[1])
    for (before, earlier), (_, later) in itertools.pairwise(in_time):
        silence = later - earlier
        if silence > longest:
            silence -= pauses.get(before + 1, 0)  # until then there was nothing to be lost
            if silence > longest:
                longest, end = silence, later
    return Tally(sent, sent - len(seen), inside - len(seen), longest, end)


def records(raw: bytes) -> list[tuple[int, int]]:
    """Return the arrivals of a file of :data:`RECORD`; half a record at its end is left out."""
    whole = raw[: len(raw) - len(raw) % RECORD.size]
    return list(RECORD.iter_unpack(whole))
