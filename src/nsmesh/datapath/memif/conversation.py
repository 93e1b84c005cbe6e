"""What a memif peer says, in either role: messages in, messages out. It owns memory and descriptors."""

from __future__ import annotations

import mmap
import os
import stat
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from nsmesh.datapath.memif.messages import (
    ACK,
    CONNECT,
    CONNECTED,
    ETHERNET_MODE,
    VERSION,
    AddRegion,
    AddRing,
    Bare,
    Disconnect,
    Hello,
    Init,
    Message,
    ProtocolError,
)
from nsmesh.datapath.memif.rings import Ring, Slot, map_region, new_region, ring_size

Sent = tuple[Message, int | None]
"""A message, and the descriptor that goes along; it stays the conversation's."""
LOG2_RING = 8
BUFFER = 2048
_NAME = "nsmesh"


class Conversation:
    """One wire with one ring each way. ``receive`` takes messages in order; ``ready`` says frames may go.

    Every descriptor that was handed in is closed by ``close``, whatever the peer did.
    """

    owned = False
    """Whether the rings are this side's own: the client's."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.ready = False
        self.incoming: Ring | None = None
        self.outgoing: Ring | None = None
        self.kicked: int | None = None
        """The descriptor that the peer writes to when frames have come."""
        self.kick: int | None = None
        """The descriptor to write to when frames were sent."""
        self.buffers_in: Sequence[Slot] = ()
        self.buffers_out: Sequence[Slot] = ()
        self._regions: dict[int, mmap.mmap] = {}
        self._descriptors: list[int] = []

    def start(self) -> list[Sent]:
        """Return what is said first, by whoever speaks first."""
        return []

    def receive(self, message: Message, descriptor: int | None) -> list[Sent]:
        """Take a message and its descriptor, which is the conversation's from now on; return what to say.

        Raises ProtocolError; the caller then closes.
        """
        if descriptor is not None:
            self._descriptors.append(descriptor)
        if isinstance(message, Disconnect):
            raise ProtocolError(f"the peer ended it: {message.reason or 'no reason given'}")
        return self._receive(message, descriptor)

    def _receive(self, message: Message, descriptor: int | None) -> list[Sent]:
        raise NotImplementedError

    def close(self) -> None:
        """Give back memory and descriptors; may be called again."""
        self.ready = False
        for ring in (self.incoming, self.outgoing):
            if ring is not None:
                ring.release()
        self.incoming = self.outgoing = self.kicked = self.kick = None
        for memory in self._regions.values():
            memory.close()
        self._regions.clear()
        while self._descriptors:
            os.close(self._descriptors.pop())


class Client(Conversation):
    """The side that connects, and whose memory it is."""

    owned = True

    def __init__(self, number: int = 0) -> None:
        super().__init__(number)
        self._greeted = False
        self._to_say: deque[Sent] = deque()

    def _receive(self, message: Message, descriptor: int | None) -> list[Sent]:  # noqa: ARG002 - kept already
        match message:
            case Hello() if not self._greeted:
                if not message.min_version <= VERSION <= message.max_version:
                    raise ProtocolError("a peer of another version of memif")
                self._greeted = True
                self._prepare(min(LOG2_RING, message.max_log2_ring))
                return [(Init(self.number, _NAME), None)]
            case Bare(type=kind) if kind == ACK and self._to_say:
                return [self._to_say.popleft()]
            case Bare(type=kind) if kind == CONNECTED and self._greeted and not self._to_say:
                assert self.incoming is not None
                self.incoming.offer_all()
                self.ready = True
                return []
        raise ProtocolError(f"{message} at this time")

    def _prepare(self, log2_size: int) -> None:
        """Make one region: the ring to the server, the ring from it, and their buffers."""
        ring, slots = ring_size(log2_size), 1 << log2_size
        size = 2 * ring + 2 * slots * BUFFER
        descriptor, memory = new_region(size)
        self._descriptors.append(descriptor)
        self._regions[0] = memory
        starts = (2 * ring, 2 * ring + slots * BUFFER)
        self.buffers_out, self.buffers_in = (
            [Slot(0, start + index * BUFFER, BUFFER) for index in range(slots)] for start in starts
        )
        self.outgoing = Ring(self._regions, 0, 0, log2_size)
        self.outgoing.format(self.buffers_out)
        self.incoming = Ring(self._regions, 0, ring, log2_size)
        self.incoming.format(self.buffers_in)
        self.kick, self.kicked = (os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2))
        self._descriptors += [self.kick, self.kicked]
        self._to_say += [
            (AddRegion(0, size), descriptor),
            (AddRing(0, 0, 0, log2_size, to_server=True), self.kick),
            (AddRing(0, 0, ring, log2_size, to_server=False), self.kicked),
            (Bare(CONNECT, _NAME), None),
        ]


class Server(Conversation):
    """The side that listens. All memory is the client's."""

    def __init__(self, number: int = 0) -> None:
        super().__init__(number)
        self._agreed = False

    def start(self) -> list[Sent]:
        """Return the greeting: one region, one ring each way."""
        return [(Hello(_NAME), None)]

    def _receive(self, message: Message, descriptor: int | None) -> list[Sent]:
        match message:
            case Init() if not self._agreed:
                self._check(message)
                self._agreed = True
            case AddRegion(index=0) if self._agreed and not self._regions:
                self._regions[0] = map_region(_given(descriptor), message.size)
            case AddRing(index=0) if self._agreed and not self.ready:
                self._add_ring(message, _interrupts(descriptor))
            case Bare(type=kind) if kind == CONNECT and self.incoming and self.outgoing and not self.ready:
                self.incoming.check_cookie()
                self.outgoing.check_cookie()
                self.ready = True
                return [(Bare(CONNECTED, _NAME), None)]
            case _:
                raise ProtocolError(f"{message} at this time: there is one region, and one ring each way")
        return [(Bare(ACK), None)]

    def _check(self, message: Init) -> None:
        if message.version != VERSION:
            raise ProtocolError("a peer of another version of memif")
        if message.id != self.number:
            raise ProtocolError(f"interface {message.id} is wanted, and here is {self.number}")
        if message.mode != ETHERNET_MODE:
            raise ProtocolError(f"mode {message.mode} is wanted, and here is Ethernet")

    def _add_ring(self, message: AddRing, descriptor: int) -> None:
        if (self.incoming if message.to_server else self.outgoing) is not None:
            raise ProtocolError("a second ring of the same way")
        ring = Ring(self._regions, message.region, message.offset, message.log2_size)
        if message.to_server:
            self.incoming, self.kicked = ring, descriptor
        else:
            self.outgoing, self.kick = ring, descriptor


def _given(descriptor: int | None) -> int:
    if descriptor is None:
        raise ProtocolError("a message without the descriptor that belongs to it")
    return descriptor


def _interrupts(descriptor: int | None) -> int:
    """Return a descriptor that is one of interrupts: any other could hold up whoever writes to it."""
    given = _given(descriptor)
    kind = str(Path(f"/proc/self/fd/{given}").readlink())
    if stat.S_IFMT(os.fstat(given).st_mode) or kind != "anon_inode:[eventfd]":
        raise ProtocolError(f"a ring whose descriptor of interrupts is {kind}")
    return given
