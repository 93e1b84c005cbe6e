"""Memif's memory: regions that the client shares, and rings of descriptors in them.

Nothing that the other side writes is believed: each word is read once, and checked before it is used. Stores
are seen in their order by the other side on processors with a strong memory model (x86-64); Python has no
barriers for others.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nsmesh.datapath.memif.messages import ProtocolError

COOKIE = 0x3E31F20
RING_HEADER = 128
DESCRIPTOR = struct.Struct("<HHIII")
"""Flags, region, length, offset in the region, metadata."""
NEXT = 1
"""Flag of a descriptor: the frame goes on in the next one."""
MASK_INTERRUPT = 1
"""Flag of a ring: its reader polls, and wants no interrupts."""
REGION_LIMIT = 1 << 30
"""Bytes of one region, at most."""
FRAME_LIMIT = 65535
LOG2_LIMIT = 14
_HEAD, _TAIL, _FLAGS = 6, 64, 4
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW = 1, 2, 4


def ring_size(log2_size: int) -> int:
    """Return the bytes of a ring."""
    return RING_HEADER + DESCRIPTOR.size * (1 << log2_size)


def new_region(size: int) -> tuple[int, mmap.mmap]:
    """Make memory that can be shared and never changes its size; return its descriptor, and the memory."""
    descriptor = os.memfd_create("memif", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, _F_ADD_SEALS, _SEAL_SHRINK | _SEAL_GROW | _SEAL_SEAL)
        return descriptor, mmap.mmap(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise


def map_region(descriptor: int, size: int) -> mmap.mmap:
    """Map memory of a peer; the descriptor stays open, and the caller's.

    Raises ProtocolError where it is smaller than it is said to be, or could become so: reading behind its
    end would kill this process.
    """
    if not 0 < size <= REGION_LIMIT:
        raise ProtocolError(f"a region of {size} bytes; there may be {REGION_LIMIT}")
    try:
        seals = fcntl.fcntl(descriptor, _F_GET_SEALS)
    except OSError as error:
        raise ProtocolError("a region that is no sealed memory") from error
    if not seals & _SEAL_SHRINK:
        raise ProtocolError("a region without F_SEAL_SHRINK, which could be shrunk under its reader")
    there = os.fstat(descriptor).st_size
    if there < size:
        raise ProtocolError(f"a region of {there} bytes that is said to have {size}")
    try:
        return mmap.mmap(descriptor, size)
    except OSError as error:
        raise ProtocolError(f"a region that cannot be mapped: {error}") from error


@dataclass(frozen=True, slots=True)
class Slot:
    """A buffer as its owner gave it."""

    region: int
    offset: int
    length: int


class Ring:
    """One ring, with what this side knows of it; ``regions`` is shared with the other rings of a wire."""

    def __init__(self, regions: Mapping[int, mmap.mmap], region: int, offset: int, log2_size: int) -> None:
        if not 0 < log2_size <= LOG2_LIMIT:
            raise ProtocolError(f"a ring of 2^{log2_size} slots; there may be 2^{LOG2_LIMIT}")
        if region not in regions:
            raise ProtocolError(f"a ring in region {region}, which is not there")
        if offset % 2 or offset + ring_size(log2_size) > len(regions[region]):
            raise ProtocolError(f"a ring at {offset}, which does not fit into region {region}")
        self._regions = regions
        self._memory = regions[region]
        self._base = offset
        # words of 16 bits, each stored at once: struct.pack_into clears a field before it writes it, and the
        # other side would see a head of 0 in between
        self._words = memoryview(self._memory)[offset : offset + RING_HEADER].cast("H")
        self.slots = 1 << log2_size
        self._done = 0

    def format(self, buffers: Sequence[Slot]) -> None:
        """Write the ring as its owner: cookie, and a buffer for each slot."""
        struct.pack_into("<IHH", self._memory, self._base, COOKIE, 0, 0)
        self._put(_TAIL, 0)
        for index, slot in enumerate(buffers):
            self._write(index, 0, slot)

    def release(self) -> None:
        """Let go of the memory, before it is closed."""
        self._words.release()

    def check_cookie(self) -> None:
        """Raise ProtocolError where no ring was written."""
        if struct.unpack_from("<I", self._memory, self._base)[0] != COOKIE:
            raise ProtocolError("a ring without its cookie")

    @property
    def wants_interrupts(self) -> bool:
        """Whether its reader waits for its descriptor to be written to."""
        return not self._get(_FLAGS) & MASK_INTERRUPT

    def offer_all(self) -> None:
        """As the owner of a ring that the other side fills: give it every buffer."""
        self._put(_HEAD, self.slots)

    def take(self, *, owned: bool, buffers: Sequence[Slot] = ()) -> list[bytes]:
        """Return the frames that have come.

        ``owned``: the ring is this side's own with these ``buffers``, and the other side moves the tail;
        else the other side moves the head, and its descriptors say where frames are.
        """
        moving, mine = (_TAIL, _HEAD) if owned else (_HEAD, _TAIL)
        end = self._get(moving)
        count = (end - self._done) & 0xFFFF
        if count > self.slots:
            raise ProtocolError(f"a ring of {self.slots} slots with {count} of them used")
        frames: list[bytes] = []
        parts: list[bytes] = []
        size = 0
        for position in range(self._done, self._done + count):
            index = position % self.slots
            flags, given = self._read(index)
            where = buffers[index] if owned else given
            if owned and given.length > where.length:
                raise ProtocolError(f"a frame of {given.length} bytes in a buffer of {where.length}")
            part = self._copy(where.region, where.offset, given.length)
            size += len(part)
            if size > FRAME_LIMIT:
                raise ProtocolError(f"a frame of more than {FRAME_LIMIT} bytes")
            parts.append(part)
            if owned:
                self._write(index, 0, where)
            if not flags & NEXT:
                frames.append(b"".join(parts))
                parts, size = [], 0
        if parts:
            raise ProtocolError("a frame that does not end")
        if count:
            self._done = end
            self._put(mine, end + self.slots if owned else end)
        return frames

    def give(self, frames: Sequence[bytes], *, owned: bool, buffers: Sequence[Slot] = ()) -> int:
        """Write frames; return how many there was room for. ``owned``, ``buffers`` as for ``take``."""
        moving, mine = (_TAIL, _HEAD) if owned else (_HEAD, _TAIL)
        free = (self._get(moving) - self._done) & 0xFFFF
        free = (free + self.slots) & 0xFFFF if owned else free
        if free > self.slots:
            raise ProtocolError(f"a ring of {self.slots} slots with {free} of them free")
        sent = 0
        for frame in frames:
            slots = self._fill(frame, free, owned=owned, buffers=buffers)
            if not slots:
                break
            free -= slots
            self._done = (self._done + slots) & 0xFFFF
            sent += 1
        self._put(mine, self._done)
        return sent

    def _fill(self, frame: bytes, free: int, *, owned: bool, buffers: Sequence[Slot]) -> int:
        """Write one frame over as many slots as it needs; return how many, 0 where there is no room."""
        at, used = 0, 0
        while at < len(frame):
            if used == free:
                return 0
            index = (self._done + used) % self.slots
            where = buffers[index] if owned else self._read(index)[1]
            memory = self._region(where.region, where.offset, where.length)
            part = frame[at : at + where.length]
            if not part:
                raise ProtocolError("a buffer without room")
            memory[where.offset : where.offset + len(part)] = part
            at += len(part)
            self._write(index, NEXT if at < len(frame) else 0, Slot(where.region, where.offset, len(part)))
            used += 1
        return used

    def _region(self, region: int, offset: int, length: int) -> mmap.mmap:
        memory = self._regions.get(region)
        if memory is None or offset + length > len(memory):
            raise ProtocolError(f"{length} bytes at {offset} of region {region}, which are not there")
        return memory

    def _copy(self, region: int, offset: int, length: int) -> bytes:
        if length > FRAME_LIMIT:
            raise ProtocolError(f"a frame of {length} bytes; there may be {FRAME_LIMIT}")
        return self._region(region, offset, length)[offset : offset + length]

    def _get(self, field: int) -> int:
        return self._words[field // 2]

    def _put(self, field: int, value: int) -> None:
        self._words[field // 2] = value & 0xFFFF

    def _read(self, index: int) -> tuple[int, Slot]:
        place = self._base + RING_HEADER + index * DESCRIPTOR.size
        flags, region, length, offset, _ = DESCRIPTOR.unpack_from(self._memory, place)
        return flags, Slot(region, offset, length)

    def _write(self, index: int, flags: int, slot: Slot) -> None:
        place = self._base + RING_HEADER + index * DESCRIPTOR.size
        DESCRIPTOR.pack_into(self._memory, place, flags, slot.region, slot.length, slot.offset, 0)
