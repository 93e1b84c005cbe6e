"""The memif peer: two of them talk, and a hostile one harms only its own wire."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from nsmesh.core.errors import Conflict, Invalid, Unavailable
from nsmesh.datapath.memif import messages
from nsmesh.datapath.memif.conversation import Client, Server
from nsmesh.datapath.memif.messages import (
    ACK,
    CONNECT,
    CONNECTED,
    AddRegion,
    AddRing,
    Bare,
    Disconnect,
    Hello,
    Init,
    ProtocolError,
)
from nsmesh.datapath.memif.peer import Peer, connect, listen
from nsmesh.datapath.memif.rings import new_region
from nsmesh.model.sockets import PATH_LIMIT


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def echo(frame):
    return frame[6:12] + frame[:6] + frame[12:]


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - other people's descriptors have no event
            await asyncio.sleep(0)


def test_frames_go_both_ways_and_whole(tmp_path):
    """Small ones and ones that need several buffers come back as they were, in order, round the ring."""

    async def scenario():
        got = []
        listener = listen(str(tmp_path / "s"), echo)
        peer = connect(str(tmp_path / "s"), got.append)
        await asyncio.wait_for(peer.connected.wait(), 10)
        sent = [bytes([number % 251]) * (60 + 37 * (number % 250)) for number in range(1500)]
        for start in range(0, len(sent), 20):
            assert peer.send(sent[start : start + 20]) == 20
            await until(lambda end=start + 20: len(got) == end)
        assert got == [echo(frame) for frame in sent]
        peer.close()
        await until(lambda: not listener.peers)
        listener.close()

    asyncio.run(scenario())
    assert not (tmp_path / "s").exists()


def test_a_thousand_reconnects_leak_nothing(tmp_path):
    """Descriptors and wires are as many afterwards as before, and the listener still serves."""

    async def scenario():
        listener = listen(str(tmp_path / "s"), echo)
        before = descriptors()
        for _ in range(1000):
            peer = connect(str(tmp_path / "s"), echo)
            await asyncio.wait_for(peer.connected.wait(), 10)
            peer.close()
            await until(lambda: not listener.peers)
        assert descriptors() == before
        listener.close()

    asyncio.run(scenario())


def test_a_name_is_refused_with_the_limit(tmp_path):
    """A path that is too long says how long it may be; nobody there, and somebody there, say so."""

    async def scenario():
        with pytest.raises(Invalid, match=str(PATH_LIMIT)):
            listen("/" + "x" * 200, echo)
        with pytest.raises(Unavailable):
            connect(str(tmp_path / "none"), echo)
        listener = listen(str(tmp_path / "s"), echo)
        with pytest.raises(Conflict):
            listen(str(tmp_path / "s"), echo)
        listener.close()

    asyncio.run(scenario())


def agreed():
    server = Server()
    server.start()
    server.receive(Init(), None)
    return server


def region(size=1 << 16):
    descriptor, memory = new_region(size)
    memory.close()
    return descriptor


def shrinkable():
    descriptor = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 1 << 16)
    return descriptor


def plain_file():
    return os.open("/etc/hostname", os.O_RDONLY)


@pytest.mark.parametrize(
    ("size", "make"),
    [
        (1 << 17, region),
        (0, region),
        (1 << 40, region),
        (1 << 16, shrinkable),
        (16, plain_file),
        (16, lambda: None),
    ],
)
def test_a_region_that_lies_is_refused(size, make):
    """Larger than it is, empty, huge, without a seal against shrinking, no memory, not there at all."""
    before = descriptors()
    server = agreed()
    with pytest.raises(ProtocolError):
        server.receive(AddRegion(0, size), make())
    server.close()
    assert descriptors() == before


@pytest.mark.parametrize(
    "ring",
    [
        AddRing(1, 0, 0, 8, to_server=True),
        AddRing(0, 7, 0, 8, to_server=True),
        AddRing(0, 0, 65000, 8, to_server=True),
        AddRing(0, 0, 0xFFFFFFFE, 8, to_server=True),
        AddRing(0, 0, 0, 255, to_server=True),
        AddRing(0, 0, 0, 0, to_server=True),
        AddRing(0, 0, 1, 4, to_server=True),
    ],
)
def test_a_ring_that_lies_is_refused(ring):
    """Its index, region, offset, and size are checked before anything is read."""
    server = agreed()
    server.receive(AddRegion(0, 1 << 16), region())
    with pytest.raises(ProtocolError):
        server.receive(ring, os.eventfd(0))
    server.close()


def test_interrupts_come_by_an_eventfd_alone():
    """A pipe could be full and hold up whoever writes into it."""
    reading, writing = os.pipe()
    server = agreed()
    server.receive(AddRegion(0, 1 << 16), region())
    with pytest.raises(ProtocolError, match="interrupts"):
        server.receive(AddRing(0, 0, 0, 4, to_server=True), writing)
    server.close()
    os.close(reading)


def test_messages_out_of_turn_end_the_wire():
    """A server wants INIT first, a client HELLO; both end at a DISCONNECT."""
    for message in (Bare(CONNECT), AddRegion(0, 4096), Bare(ACK), Hello("x")):
        with pytest.raises(ProtocolError):
            Server().receive(message, None)
    for message in (Bare(ACK), Bare(CONNECTED), Init()):
        with pytest.raises(ProtocolError):
            Client().receive(message, None)
    with pytest.raises(ProtocolError, match="for a reason"):
        Client().receive(Disconnect("for a reason"), None)


def test_a_flood_of_descriptors_ends_one_wire_and_leaks_none(tmp_path):
    """The hostile wire ends, its descriptors are closed, and its neighbour goes on."""

    async def scenario():
        got = []
        listener = listen(str(tmp_path / "s"), echo)
        good = connect(str(tmp_path / "s"), got.append)
        await asyncio.wait_for(good.connected.wait(), 10)
        before = descriptors()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bad, contextlib.suppress(OSError):
            bad.connect(str(tmp_path / "s"))
            bad.setblocking(False)  # noqa: FBT003 - the library's own face
            for _ in range(3):
                socket.send_fds(bad, [messages.encode(Init())], [0] * 200)
            await until(lambda: len(listener.peers) == 2)
        await until(lambda: len(listener.peers) == 1)
        assert descriptors() == before
        assert good.send([b"x" * 60]) == 1
        await until(lambda: len(got) == 1)
        good.close()
        listener.close()

    asyncio.run(scenario())


def test_a_ring_with_a_wild_index_ends_one_wire(tmp_path):
    """The head says that more slots are used than there are."""

    async def scenario():
        listener = listen(str(tmp_path / "s"), echo)
        talk = Client()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(tmp_path / "s"))
        peer = Peer(sock, talk, echo)
        await asyncio.wait_for(peer.connected.wait(), 10)
        talk.outgoing._put(6, 5000)
        os.eventfd_write(talk.kick, 1)
        await asyncio.wait_for(peer.closed.wait(), 10)
        assert "5000" in peer.reason
        listener.close()

    asyncio.run(scenario())
