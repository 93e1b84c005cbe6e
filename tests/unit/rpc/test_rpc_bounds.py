"""What a server keeps for all its connections together, and whom it ends when that is too much."""

import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
import time

import pytest
from rpc_helpers import HEADERS, Service

from nsmesh import rpc
from nsmesh.core.errors import MeshError
from nsmesh.rpc import engine as http2
from nsmesh.rpc import framing
from nsmesh.rpc.h2_frames import PREFACE, Splitter

COUNT, ECHO, WAIT = "/test.Echo/Count", "/test.Echo/Echo", "/test.Echo/Wait"


async def settled(condition, seconds=5.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0.002)


async def dumb(path):
    """Return a connected socket that sends the beginning of HTTP/2 and reads nothing."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(0)
    sock.connect(str(path))
    engine = http2.make("ng", rpc.Limits(window=1 << 24), client=True)
    engine.start()
    return sock, engine


def test_who_keeps_the_most_is_ended(tmp_path, engine):
    """When all connections together make us keep too much, the greediest goes, and no other."""

    async def main():
        limits = rpc.Limits(held=8 << 20, held_in_all=6 << 20)
        service = Service()
        url = f"unix://{tmp_path}/s.sock"
        async with rpc.serve(url, service.methods(), engine=engine, limits=limits) as server:
            small, greedy = [await rpc.connect(url, engine="ng") for _ in range(2)]
            kept = asyncio.ensure_future(small.unary(WAIT, bytes(1 << 20)))
            await settled(lambda: len(service.calls) == 1)
            calls = [asyncio.ensure_future(greedy.unary(WAIT, bytes(1 << 20))) for _ in range(7)]
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, MeshError)
            await settled(lambda: server.connections == 1)
            service.gate.set()
            assert len((await kept).message) == 1 << 20
            await small.aclose()
            await greedy.aclose(0)

    asyncio.run(main())


def test_many_small_calls_count_too(tmp_path, engine):
    """Calls with nothing in them cost their headers and something more; together they are bounded."""

    async def main():
        limits = rpc.Limits(held=1 << 20)
        async with rpc.serve(
            f"unix://{tmp_path}/s.sock", Service().methods(), engine=engine, limits=limits
        ) as server:
            client = await rpc.connect(server.url, engine="ng")
            calls = [asyncio.ensure_future(client.unary(WAIT, b"")) for _ in range(400)]
            done, _ = await asyncio.wait(calls, timeout=5, return_when=asyncio.FIRST_EXCEPTION)
            assert "under way on one connection" in str(next(iter(done)).exception())
            assert sum(connection.kept for connection in server._connections) <= 1 << 20
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await settled(lambda: sum(one.kept for one in server._connections) == 0)
            await client.aclose()

    asyncio.run(main())


def test_a_peer_that_reads_nothing_is_left(tmp_path, engine):
    """A socket that takes nothing for the time of ``stall`` is closed; one that is slow is not."""

    async def main():
        limits = rpc.Limits(stall=0.2)
        service = Service()
        async with rpc.serve(
            f"unix://{tmp_path}/s.sock", service.methods(), engine=engine, limits=limits
        ) as server:
            sock, speaker = await dumb(tmp_path / "s.sock")
            fields = [(name, COUNT.encode() if name == b":path" else value) for name, value in HEADERS]
            stream = speaker.request(fields)
            speaker.data(stream, framing.envelope(b"-1 1000"), ended=True)
            sock.sendall(speaker.take(1 << 20))
            await settled(lambda: service.made > 50)
            for _ in range(20):  # slowly
                await asyncio.sleep(0.02)
                with contextlib.suppress(BlockingIOError):
                    sock.recv(1 << 16)
            assert server.connections == 1
            began = time.monotonic()
            await settled(lambda: server.connections == 0)
            assert time.monotonic() - began < 2
            await settled(lambda: service.cancelled == 1)
            sock.close()

    asyncio.run(main())


HANDSHAKES = """
import socket, sys
silent = [socket.socket(socket.AF_UNIX) for _ in range(12)]
for sock in silent:
    sock.connect(sys.argv[1])
print("all", flush=True)
sys.stdin.read()
"""


def test_half_open_connections_of_many_make_room_for_those_of_few(tmp_path, engine):
    """Where most come from one process, one of those goes, though somebody else's be older."""

    async def main():
        limits = rpc.Limits(half_open=6)
        async with rpc.serve(
            f"unix://{tmp_path}/s.sock", Service().methods(), engine=engine, limits=limits
        ) as server:
            old, _ = await dumb(tmp_path / "s.sock")
            await settled(lambda: server.half_open == 1)
            (first,) = server._half_open
            with subprocess.Popen(
                [sys.executable, "-c", HANDSHAKES, str(tmp_path / "s.sock")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            ) as other:
                await asyncio.get_running_loop().run_in_executor(None, other.stdout.readline)
                await settled(lambda: server.half_open == 6)
                assert first in server._half_open
                client = await rpc.connect(server.url, engine="ng")
                await client.unary(ECHO, b"")
                await client.aclose()
                other.stdin.close()
            old.close()

    asyncio.run(main())


def test_a_goaway_of_a_stream_breaks_the_protocol():
    """GOAWAY speaks of the whole connection; with a stream's number it means nothing."""
    head = PREFACE + struct.pack(">BHBBI", 0, 0, 4, 0, 0)
    body = struct.pack(">II", 0, 0)
    good = head + struct.pack(">BHBBI", 0, 8, 7, 0, 0) + body
    assert list(Splitter(preface=True).split(good))[-1] == http2.GoAway(0, 0)
    with pytest.raises(http2.EngineError, match="stream of its own"):
        list(Splitter(preface=True).split(head + struct.pack(">BHBBI", 0, 8, 7, 0, 1) + body))


def test_many_continuations_pass_where_the_headers_may_be_that_large(tmp_path, engine):
    """Metadata just below what ends a connection ends its call alone, however many frames it takes."""

    async def main():
        async with rpc.serve(f"unix://{tmp_path}/s.sock", Service().methods(), engine=engine) as server:
            client = await rpc.connect(server.url, engine=engine)
            many = [(f"k-{number}", "~" * 10_000) for number in range(24)]
            with pytest.raises(MeshError, match="more than the 65536 that pass"):
                await client.unary(ECHO, b"", metadata=many)
            assert (await client.unary(ECHO, b"x")).message == b"x"
            await client.aclose()

    asyncio.run(main())


def test_names_of_errors_are_those_of_the_standard():
    """Logs call an error by its name; unknown ones by their number."""
    assert http2.code_name(9) == "COMPRESSION_ERROR"
    assert http2.code_name(99) == "error 99"
