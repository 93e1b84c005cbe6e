"""HTTP/2 as a weapon in the hands of an insider: floods, sizes, windows, silence; others are served."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import time

import pytest
from attacks import Raw, connection, headers, spiffe, wanted

from nsmesh import rpc
from nsmesh.model import methods
from nsmesh.rpc import engine as http2
from nsmesh.rpc import framing

MONITOR_ALL = framing.envelope(b"")
FEW = 20
"""Descriptors that the roles may open meanwhile for others, who are served on."""


@contextlib.asynccontextmanager
async def weapon(mesh, who, **limits):
    context = who.identity.client_context()
    async with Raw(mesh.url("nsmgr"), context, rpc.Limits(**limits)) as raw:
        yield raw


async def settled(condition, seconds=30.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0.02)


async def rapid_resets(raw):
    for _ in range(30_000):  # more than it takes: on a busy machine few of them fall into the window
        if raw.over:
            break
        stream = raw.open(methods.MONITOR)
        raw.engine.data(stream, MONITOR_ALL, ended=True)
        raw.engine.reset(stream, http2.CANCEL)
        raw.flush()
        if stream % 64 == 1:
            await asyncio.sleep(0)


async def pings(raw):
    for number in range(120_000):
        raw.send(6, 0, 0, b"12345678")
        if number % 1000 == 0:
            await asyncio.sleep(0)
            if raw.over:
                break


async def settings(raw):
    for _ in range(200):
        raw.send(4, 0, 0)


async def empty_frames(raw):
    stream = raw.open()
    for _ in range(2500):
        raw.send(0, 0, stream)


async def continuations(raw):
    raw.send(1, 0, 1, b"\x82")  # a header block without an end
    for _ in range(1000):
        raw.send(9, 0, 1, b"")


async def large_headers(raw):
    raw.send(1, 0, 1, b"\x00\x01x\x7f\x81\xff\x07" + b"A" * 16_000)
    for _ in range(100):
        raw.send(9, 0, 1, b"A" * 16_384)


async def large_frame(raw):
    raw.send(0, 0, 1, bytes(1 << 20))


async def window_overflow(raw):
    for _ in range(4):
        raw.send(8, 0, 0, (2**31 - 1).to_bytes(4, "big"))


async def window_of_nothing(raw):
    for _ in range(4):
        raw.send(8, 0, 0, bytes(4))


@pytest.mark.parametrize(
    ("flood", "pattern"),
    [
        (rapid_resets, "a peer floods us"),
        (pings, "a peer floods us"),
        (settings, "a peer floods us"),
        (empty_frames, "a peer floods us"),
        (continuations, "a peer broke the protocol"),
        (large_headers, "a peer broke the protocol"),
        (large_frame, "a peer broke the protocol"),
        (window_overflow, "a peer broke the protocol"),
        (window_of_nothing, "a peer broke the protocol"),
    ],
)
def test_a_flood_ends_its_connection(mesh, mallory, flood, pattern):
    """The connection is ended with a GOAWAY, and the log says who did what."""

    async def main():
        async with weapon(mesh, mallory) as raw:
            with contextlib.suppress(OSError):
                await flood(raw)
            await raw.end()
        mesh.heard(pattern, peer=spiffe(mallory.name))

    asyncio.run(main())


def test_large_messages_are_refused(mesh, mallory):
    """A message that says it is larger than allowed is refused before it has come."""

    async def main():
        async with weapon(mesh, mallory) as raw:
            stream = raw.open(methods.REQUEST)
            raw.engine.data(stream, b"\0\xff\xff\xff\xff" + bytes(1000), ended=False)
            raw.flush()
            answer = await raw.until(http2.Headers, stream)
            assert dict(answer.headers)[b"grpc-status"] == b"8"
        mesh.heard("4294967295 is larger|of 4294967295 bytes", peer=spiffe(mallory.name))

    asyncio.run(main())


def test_memory_is_bounded_where_nothing_is_read_or_finished(mesh, mallory):
    """Messages that are never finished, and large answers that nobody reads, cost a bounded memory."""
    before = mesh.memory()
    fields = [(key.encode(), value.encode()) for key, value in headers(mallory.token())]
    refused = "the messages under way on one connection"

    async def pour(raw, message):
        """Send a message and never end its call, as fast as the windows allow."""
        stream = raw.open(methods.REQUEST, fields)
        raw.engine.data(stream, message, ended=False)
        raw.flush()
        while raw.engine.queued(stream) and not raw.ended:
            await raw.read()

    async def unfinished():
        async with weapon(mesh, mallory) as raw:
            for _ in range(18):
                await pour(raw, framing.envelope(bytes(4 << 20))[:-1])
            mesh.heard(refused, peer=spiffe(mallory.name))

    async def unread():
        mesh.mark()
        victim = mesh.insider(f"large-{mallory.name}")
        wires = []
        for number in range(8):
            made = connection(f"{victim.name}-{number}", victim.name)
            made.labels["filler"] = "x" * 240_000
            wires.append(await victim.request(mesh.url("nsmgr"), made))
        async with weapon(mesh, mallory, window=0) as raw:  # nothing of any answer can come
            for _ in range(100):
                stream = raw.open()
                raw.engine.data(stream, MONITOR_ALL, ended=True)
            raw.flush()
            mesh.heard(refused, peer=spiffe(mallory.name))
        for wire in wires:
            await victim.close(mesh.url("nsmgr"), wire)

    async def main():
        await unfinished()
        await unread()
        assert mesh.memory() < before + (300 << 20)

    asyncio.run(main())


def test_a_slow_reader_and_a_slow_writer_hold_nobody_up(mesh, mallory):
    """Monitors that are never read, and a Request that comes byte by byte, cost the others nothing."""

    async def main():
        async with weapon(mesh, mallory) as reader, weapon(mesh, mallory) as writer:
            for _ in range(200):
                stream = reader.open()
                reader.engine.data(stream, MONITOR_ALL, ended=True)
            reader.flush()
            fields = [(key.encode(), value.encode()) for key, value in headers(mallory.token())]
            stream = writer.open(methods.REQUEST, fields)
            body = framing.envelope(wanted(connection(f"{mallory.name}-1", mallory.name)))
            for place in range(len(body)):
                last = place == len(body) - 1
                writer.engine.data(stream, body[place : place + 1], ended=last)
                writer.flush()
                await asyncio.sleep(0.001)
            await writer.until(http2.Trailers, stream)

    asyncio.run(main())


def test_half_open_connections_make_room(mesh, mallory):
    """Half a TLS handshake, over and over, keeps nobody out; what is left is dropped in time."""
    path = mesh.url("nsmgr").removeprefix("unix://")

    async def main():
        before = mesh.descriptors()
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)
        for _ in range(3):
            half = []
            for _ in range(100):
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(path)
                sock.send(hello)
                half.append(sock)
            await asyncio.sleep(0.05)
            for sock in half:
                sock.close()
        await settled(lambda: mesh.descriptors() < before + FEW)

    asyncio.run(main())


SILENCE = """
import socket, sys, time
silent = []
for number in range(1000):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(sys.argv[1])
    silent.append(sock)
print("all", flush=True)
sys.stdin.read()
"""


def test_a_thousand_silent_connections(mesh, mallory):
    """A thousand connections that say nothing: the oldest make room, and all go when their time is over."""
    before = mesh.descriptors()
    path = mesh.url("nsmgr").removeprefix("unix://")
    attacker = subprocess.Popen(
        [sys.executable, "-c", SILENCE, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    async def main():
        client = await mallory.dial(mesh.url("nsmgr"))
        await client.unary(methods.HEALTH_CHECK, b"")
        await client.aclose(0)
        assert mesh.descriptors() < before + 200

    with attacker:
        assert attacker.stdout.readline() == b"all\n"
        asyncio.run(main())
        mesh.heard("closed a connection without handshake to make room")
        attacker.stdin.close()
    asyncio.run(settled(lambda: mesh.descriptors() < before + FEW))
