"""A stream of numbered frames that a memif peer sends back, and peers that break the rules of memif."""

import asyncio
import os
import socket
from contextlib import asynccontextmanager, suppress

from ovs_lab import until

from nsmesh.datapath import netns
from nsmesh.datapath.memif.conversation import Client
from nsmesh.datapath.memif.peer import Peer
from nsmesh.datapath.memif.rings import Slot

KIND = 0x88B5
PAUSE = 0.01
"""Seconds between two frames: the socket of a switch's port keeps some 280 while its main thread pauses."""


class Stream:
    """Numbered frames that a pod sends to a peer who sends them back."""

    def __init__(self, pod, name="nsm-1"):
        def opened():
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(KIND))
            made.bind((name, KIND))
            return made

        self._loop = asyncio.get_running_loop()
        self._socket = netns.call_in(pod, opened)
        self._loop.add_reader(self._socket, self._take)
        self.sent, self.gap, self.back, self._last = 0, 0.0, set(), None

    def _take(self):
        frame, (_, _, how, *_) = self._socket.recvfrom(2048)
        if how != socket.PACKET_OUTGOING:
            now = self._loop.time()
            self.gap, self._last = max(self.gap, now - (self._last or now)), now
            self.back.add(int.from_bytes(frame[14:18], "big"))

    async def _send(self):
        while True:
            with suppress(BlockingIOError):
                self._socket.send(
                    b"\x02" * 6 + b"\x06" * 6 + KIND.to_bytes(2) + self.sent.to_bytes(4) + bytes(60)
                )
                self.sent += 1
            await asyncio.sleep(PAUSE)

    @asynccontextmanager
    async def running(self):
        """Send while the block runs, then wait for the last ones."""
        sending = asyncio.ensure_future(self._send())
        try:
            yield self
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            with suppress(AssertionError):
                await until(lambda: len(self.back) >= self.sent, 3)
            self._loop.remove_reader(self._socket)
            self._socket.close()

    async def more(self, count=50):
        """Wait for so many frames more."""
        wanted = len(self.back) + count
        await until(lambda: len(self.back) >= wanted, why=lambda: f"{len(self.back)} of {self.sent} came")

    @property
    def lost(self):
        return sorted(set(range(self.sent)) - self.back)


async def begun(pod):
    """Wait until frames go round."""
    probe = Stream(pod)
    async with probe.running():
        await probe.more(1)


def wild_head(talk):
    talk.outgoing._put(6, 5000)


def wild_head_of_its_own_ring(talk):
    talk.incoming._put(6, 9999)


def lying_lengths(talk):
    for index, slot in enumerate(talk.buffers_out):
        talk.outgoing._write(index, 0, Slot(0, slot.offset, 0xFFFF_FFFF))
    talk.outgoing._put(6, 200)


def closed_eventfds(talk):
    for descriptor in (talk.kick, talk.kicked):
        asyncio.get_running_loop().remove_reader(descriptor)
        talk._descriptors.remove(descriptor)
        os.close(descriptor)


def foreign_region(talk):
    for index in range(len(talk.buffers_out)):
        talk.outgoing._write(index, 0, Slot(9999, 0, 60))
    talk.outgoing._put(6, 200)


@asynccontextmanager
async def hostile(path):
    """Yield the conversation of a peer that may break all rules."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.connect(str(path))
    talk = Client()
    peer = Peer(sock, talk, lambda _: None)
    try:
        await asyncio.wait_for(peer.connected.wait(), 20)
        yield talk
    finally:
        peer.close()
