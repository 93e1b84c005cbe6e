"""Memif and vhost-user wires of a switch while things die or lie: numbered frames go round meanwhile."""

import asyncio
import os
import socket
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import datapath_lab as lab
import pytest
from ovs_lab import (
    Echo,
    answering,
    kernel,
    killed,
    listening,
    needs_testpmd,
    pings,
    reflecting,
    sharing_memory,
    until,
    vhost,
)

from nsmesh.datapath import netns, ovs_programs
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.memif.conversation import Client
from nsmesh.datapath.memif.peer import Peer, connect
from nsmesh.datapath.memif.rings import Slot
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_programs import running

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(150),
    pytest.mark.skipif(bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed"),
]
KIND = 0x88B5
PAUSE = 0.01
"""Seconds between two frames: the socket of a switch's port keeps some 280 while its main thread pauses."""
RECONNECTS = 1000


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


@asynccontextmanager
async def machine(path, tmp_path):
    """Have a testpmd with a virtio device send each frame back."""
    with Echo(tmp_path, "net_virtio_user0", f"path={path}", "queues=1", mode="macswap"):
        yield


@pytest.mark.parametrize("kind", ["memif", pytest.param("vhost-user", marks=needs_testpmd)])
def test_a_driver_that_starts_again_loses_no_packet(tmp_path, kind):
    """The next one takes the wire over in the middle of a stream, finds it unchanged, keeps the switch."""

    async def body(make, pod):
        first = make()
        memif = kind == "memif"
        near = listening(first) if memif else vhost(first)
        wire = CrossConnect("w1", kernel(pod), near)
        await first.apply(wire)
        peer = reflecting(near.socket) if memif else machine(near.socket, tmp_path)
        async with peer:
            await begun(pod)
            stream = Stream(pod)
            async with stream.running():
                await stream.more()
                await first.aclose()
                second = make()
                async with keeping(second.switches):
                    assert await second.sweep(["w1"]) == []
                    assert (await second.apply(wire)).outcome == "unchanged"
                    await stream.more()
        assert stream.lost == []
        await second.remove("w1")
        await second.aclose()

    sharing_memory(tmp_path, body)


@pytest.mark.parametrize("program", ["ovs-vswitchd", "ovsdb-server"])
def test_a_daemon_that_dies_in_the_middle_of_a_stream(tmp_path, program):
    """A new switch has the stream go on; without its database one pauses for a second and loses nothing."""

    async def body(make, pod):
        datapath = make()
        near = listening(datapath)
        async with keeping(datapath.switches):
            await datapath.apply(CrossConnect("w1", kernel(pod), near))
            async with reflecting(near.socket):
                await begun(pod)
                stream = Stream(pod)
                async with stream.running():
                    await stream.more()
                    await killed(datapath, program)
                    await stream.more()
                assert stream.gap < 30
                if program == "ovsdb-server":
                    assert stream.lost == []
        await datapath.aclose()

    sharing_memory(tmp_path, body)


def test_a_peer_that_connects_a_thousand_times_costs_the_switch_nothing(tmp_path):
    """The switch has as many descriptors afterwards as before, is the same, and serves."""

    async def body(make, pod):
        datapath = make()
        near = listening(datapath)
        await datapath.apply(CrossConnect("w1", kernel(pod), near))
        pid = running(datapath.switch.directory / "ovs-vswitchd.pid", "ovs-vswitchd")

        def descriptors():
            return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())

        async def once():
            peer = connect(near.socket, lambda _: None)
            await asyncio.wait_for(peer.connected.wait(), 20)
            peer.close()

        await once()
        await asyncio.sleep(0.2)
        before = descriptors()
        for _ in range(RECONNECTS):
            await once()
        await until(lambda: descriptors() <= before, why=lambda: f"{before} before, {descriptors()} now")
        async with answering(near.socket):
            assert await pings(pod, seconds=30)
        assert running(datapath.switch.directory / "ovs-vswitchd.pid", "ovs-vswitchd") == pid
        await datapath.aclose()

    sharing_memory(tmp_path, body)


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


@pytest.mark.parametrize("other", ["interface", "machine"])
def test_a_peer_that_breaks_the_rules_harms_its_own_wire(tmp_path, other):
    """Wild indexes, lengths that lie, closed eventfds: a stream beside loses nothing."""

    async def body(make, pod):
        datapath = make()
        near, bad = listening(datapath), listening(datapath, "bad.memif")
        pid_file = datapath.switch.directory / "ovs-vswitchd.pid"
        async with keeping(datapath.switches):
            await datapath.apply(CrossConnect("w1", kernel(pod), near))
            far = vhost(datapath) if other == "machine" else kernel(pod, 2)
            await datapath.apply(CrossConnect("w2", far, bad))
            pid = running(pid_file, "ovs-vswitchd")
            async with reflecting(near.socket):
                await begun(pod)
                stream = Stream(pod)
                async with stream.running():
                    for lie in (wild_head, wild_head_of_its_own_ring, lying_lengths, closed_eventfds):
                        async with hostile(bad.socket) as talk:
                            lie(talk)
                            await stream.more(40)
            assert running(pid_file, "ovs-vswitchd") == pid
            assert stream.lost == []
            await datapath.apply(CrossConnect("w2", kernel(pod, 2), bad))
            async with answering(bad.socket, 2):
                assert await pings(pod, 2, 30)
        await datapath.aclose()

    sharing_memory(tmp_path, body)


def test_a_peer_that_names_memory_that_is_not_there_may_end_the_switch_and_all_wires_come_back(tmp_path):
    """DPDK follows such a descriptor; the switch that follows the dead one has the wires of the others.

    Three times: the stream of another peer pauses and goes on by itself each time, the last wire is there,
    and a kernel wire through the same switch carries pings.
    """

    async def body(make, pod, other):
        datapath = make()
        near, bad = listening(datapath), listening(datapath, "bad.memif")
        pid_file = datapath.switch.directory / "ovs-vswitchd.pid"
        async with keeping(datapath.switches):
            await datapath.apply(CrossConnect("w1", kernel(pod), near))
            await datapath.apply(CrossConnect("w2", kernel(pod, 2), bad))
            await datapath.apply(lab.simple(pod, other, "w3", 3))
            async with reflecting(near.socket):
                await begun(pod)
                for _ in range(3):
                    pid = running(pid_file, "ovs-vswitchd")
                    stream = Stream(pod)
                    async with stream.running():
                        await stream.more(50)
                        async with hostile(bad.socket) as talk:
                            foreign_region(talk)
                            await until(lambda: running(pid_file, "ovs-vswitchd") not in {0, pid})  # noqa: B023 - now
                        await stream.more(50)
                    assert stream.gap < 30
                    assert await pings(pod, 3, 30)
            assert len(await datapath.switch.ports.owners()) == 3
            async with answering(bad.socket, 2):
                assert await pings(pod, 2, 30)
        await datapath.aclose()

    sharing_memory(tmp_path, body, pods=2)
