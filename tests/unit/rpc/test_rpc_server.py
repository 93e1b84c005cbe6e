"""The server against peers of every kind: foreign, rude, flooding, silent, many; and how it ends."""

import asyncio
import contextlib
import os
import resource
import socket
import struct
import subprocess
import sys
import time

import pytest
from rpc_helpers import HEADERS, LIMITS, Service, open_descriptors, pair

from nsmesh import rpc
from nsmesh.core.errors import Conflict, Exhausted, Remote, TimedOut, Unanswered, Unavailable
from nsmesh.rpc import engine as http2
from nsmesh.rpc import framing

ECHO, WAIT, COUNT, HOLD, LAZY = (f"/test.Echo/{name}" for name in ("Echo", "Wait", "Count", "Hold", "Lazy"))


async def settle(condition, seconds=5.0):
    """Wait until something comes true."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0.001)


class Raw:
    """A peer that speaks HTTP/2 by hand."""

    def __init__(self, path):
        self.engine = http2.make("ng", LIMITS, client=True)
        self.engine.start()
        self.path = path
        self.events = []
        self.heard = b""
        self.ended = False

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_unix_connection(self.path)
        self.flush()
        return self

    async def __aexit__(self, *_):
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def flush(self):
        if out := self.engine.take(1 << 20):
            self.writer.write(out)

    def frame(self, kind, flags, stream, body=b""):
        self.writer.write(
            struct.pack(">BHBBI", len(body) >> 16, len(body) & 0xFFFF, kind, flags, stream) + body
        )

    async def read(self):
        data = await self.reader.read(1 << 16)
        self.ended = not data
        self.heard += data
        with contextlib.suppress(http2.EngineError):
            self.events += self.engine.feed(data) if data else []
        self.flush()

    async def until(self, kind, stream=None):
        while True:
            for event in self.events:
                if isinstance(event, kind) and (stream is None or event.stream == stream):
                    return event
            assert not self.ended
            await asyncio.wait_for(self.read(), 5)

    async def end(self):
        """Read to the end of the connection and return the codes of its GOAWAY frames."""
        while not self.ended:
            try:
                await asyncio.wait_for(self.read(), 5)
            except OSError:
                break
        codes = []
        place = 0
        while len(self.heard) >= place + 9:
            if self.heard[place + 3] == 7:
                codes.append(struct.unpack_from(">I", self.heard, place + 13)[0])
            place += 9 + int.from_bytes(self.heard[place : place + 3], "big")
        return codes


def request(changes=(), drop=()):
    kept = [(name, value) for name, value in HEADERS if name not in drop and name not in dict(changes)]
    return sorted([*kept, *changes], key=lambda pair: not pair[0].startswith(b":"))


@contextlib.asynccontextmanager
async def served(tmp_path, engine, **options):
    service = Service()
    url = f"unix://{tmp_path}/s.sock"
    async with (
        rpc.serve(url, service.methods(), engine=engine, **options) as server,
        Raw(tmp_path / "s.sock") as raw,
    ):
        yield service, server, raw


def status(headers):
    return int(dict(headers).get(b"grpc-status", b"-1"))


@pytest.mark.parametrize(
    ("changes", "drop", "http", "grpc"),
    [
        ([], [b"te"], b"200", None),
        ([(b":authority", b"%2Frun%2Fs.sock")], [], b"200", None),
        ([(b"content-type", b"application/grpc+proto")], [], b"200", None),
        ([(b"grpc-timeout", b"15S")], [], b"200", None),
        ([(b"content-type", b"text/html")], [], b"415", 13),
        ([], [b"content-type"], b"415", 13),
        ([(b":method", b"GET")], [], b"405", 13),
        ([(b":path", b"/test.Echo/None")], [], b"200", 12),
        ([(b"grpc-timeout", b"soon")], [], b"200", 3),
        ([(b"grpc-timeout", b"0n")], [], b"200", 4),
    ],
)
def test_requests_of_strangers(tmp_path, engine, changes, drop, http, grpc):
    """What gRPC leaves open is accepted; what it forbids is refused with its code, and no more ends."""

    async def main():
        async with served(tmp_path, engine) as (_, _, raw):
            stream = raw.engine.request(request(changes, drop))
            raw.flush()
            await asyncio.sleep(0.01 if grpc == 4 else 0)
            raw.engine.data(stream, framing.envelope(b"hello"), ended=True)
            raw.flush()
            answer = await raw.until(http2.Headers, stream)
            assert dict(answer.headers)[b":status"] == http
            if grpc is not None:
                assert answer.ended
                assert status(answer.headers) == grpc
                stream = raw.engine.request(request())
                raw.engine.data(stream, framing.envelope(b"hello"), ended=True)
                raw.flush()
            assert (await raw.until(http2.Data, stream)).data == framing.envelope(b"hello")
            assert status((await raw.until(http2.Trailers, stream)).headers) == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "grpc", "text"),
    [
        (b"", 13, b"none came"),
        (b"\0\0\0", 13, b"ended before its end"),
        (framing.envelope(b"two") * 2, 13, b"more came"),
        (b"\1\0\0\0\1x", 12, b"uncompressed"),
        (b"\0\xff\xff\xff\xff", 8, b"4294967295"),
    ],
)
def test_bodies_that_are_no_message(tmp_path, engine, body, grpc, text):
    """No message, half a one, two, a compressed and a too large one are refused with a text that says so."""

    async def main():
        async with served(tmp_path, engine) as (service, _, raw):
            stream = raw.engine.request(request())
            raw.engine.data(stream, body, ended=True)
            raw.flush()
            answer = await raw.until(http2.Headers, stream)
            assert status(answer.headers) == grpc
            assert text in dict(answer.headers)[b"grpc-message"]
            assert not service.calls

    asyncio.run(main())


def test_a_message_in_small_pieces(tmp_path, engine):
    """A message over many DATA frames, and several messages in one, are put together."""

    async def main():
        async with served(tmp_path, engine) as (_, _, raw):
            stream = raw.engine.request(request())
            whole = framing.envelope(bytes(range(200)))
            for place in range(len(whole)):
                raw.engine.data(stream, whole[place : place + 1], ended=False)
                raw.flush()
            raw.engine.data(stream, b"", ended=True)
            raw.flush()
            assert (await raw.until(http2.Data, stream)).data == whole
            stream = raw.engine.request(request([(b":path", b"/test.Echo/Both")]))
            raw.engine.data(stream, whole * 5, ended=True)
            raw.flush()
            await raw.until(http2.Trailers, stream)
            got = b"".join(e.data for e in raw.events if isinstance(e, http2.Data) and e.stream == stream)
            assert got == whole * 5

    asyncio.run(main())


def test_a_refused_sender_is_stopped(tmp_path, engine):
    """Who is refused while it still sends gets its answer, and RST_STREAM(NO_ERROR) behind it."""

    async def main():
        async with served(tmp_path, engine) as (_, server, raw):
            stream = raw.engine.request(request([(b":path", b"/none")]))
            raw.flush()
            assert status((await raw.until(http2.Headers, stream)).headers) == 12
            assert (await raw.until(http2.Reset, stream)).code == http2.NO_ERROR
            assert server.running == 0

    asyncio.run(main())


def test_a_goodbye_with_the_highest_stream_id_is_no_fault(tmp_path, engine, capsys):
    """A client may end with GOAWAY of the highest stream id, as grpc-go does: nothing is logged."""

    async def main():
        async with served(tmp_path, engine) as (_, server, raw):
            await raw.until(http2.Settings)
            raw.frame(7, 0, 0, struct.pack(">II", http2.LAST_STREAM, 0))
            await raw.writer.drain()
            await asyncio.sleep(0.01)
            raw.writer.close()
            await settle(lambda: server.connections == 0)

    asyncio.run(main())
    assert capsys.readouterr().out == ""


CALM = rpc.Limits(resets=50, pings=50, settings=20, empty_frames=50)


def reset_flood(raw):
    for _ in range(60):
        stream = raw.engine.request(request([(b":path", b"/test.Echo/Wait")]))
        raw.engine.data(stream, framing.envelope(b"x"), ended=True)
        raw.flush()
        raw.engine.reset(stream, http2.CANCEL)
        raw.flush()


def ping_flood(raw):
    for _ in range(60):
        raw.frame(6, 0, 0, b"12345678")


def settings_flood(raw):
    for _ in range(40):
        raw.frame(4, 0, 0)


def empty_flood(raw):
    stream = raw.engine.request(request([(b":path", b"/test.Echo/Lazy")]))
    raw.flush()
    for _ in range(60):
        raw.frame(0, 0, stream)


@pytest.mark.parametrize("flood", [reset_flood, ping_flood, settings_flood, empty_flood])
def test_floods_are_answered_with_calm(tmp_path, engine, flood):
    """Rapid resets, pings, settings and empty frames end in ENHANCE_YOUR_CALM; nothing is left."""

    async def main():
        async with served(tmp_path, engine, limits=CALM) as (_, server, raw):
            await raw.until(http2.Settings)
            flood(raw)
            assert http2.ENHANCE_YOUR_CALM in await raw.end()
            await settle(lambda: server.connections == 0 and server.running == 0)
            client = await rpc.connect(server.url, engine=engine)
            assert (await client.unary(ECHO, b"others are served")).message
            await client.aclose()

    asyncio.run(main())


def test_ordinary_cancellations_are_no_flood(engine):
    """A thousand calls that are cancelled together are nobody's attack."""

    async def main():
        async with pair(engine) as (service, server, client):
            calls = [asyncio.ensure_future(client.unary(WAIT, b"")) for _ in range(1000)]
            await settle(lambda: len(service.calls) == 1000)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await settle(lambda: service.cancelled == 1000 and server.running == 0)
            assert not client.closed

    asyncio.run(main())


def test_what_one_connection_keeps_is_bounded(tmp_path, engine):
    """Large messages that are never finished are refused when they are too much together."""

    async def main():
        async with served(tmp_path, engine, limits=rpc.Limits(held=3 << 20)) as (_, server, raw):
            await raw.until(http2.Settings)
            streams = [raw.engine.request(request()) for _ in range(4)]
            for stream in streams:
                raw.engine.data(stream, framing.envelope(bytes(4 << 20))[: 1 << 20], ended=False)
            raw.flush()
            answer = await raw.until(http2.Headers)
            assert status(answer.headers) == 8
            assert sum(connection._held for connection in server._connections) <= 3 << 20

    asyncio.run(main())


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + bytes(600), bytes(100)]
)
def test_other_protocols_are_closed(tmp_path, engine, junk):
    """HTTP/1, TLS on a plaintext socket and noise end their connection, and no other."""

    async def main():
        async with served(tmp_path, engine, limits=rpc.Limits(handshake=0.2)) as (_, server, raw):
            await raw.until(http2.Settings)
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s.sock")
            writer.write(junk)
            with contextlib.suppress(OSError):
                await asyncio.wait_for(reader.read(), 5)
            writer.close()
            await settle(lambda: server.connections == 1)
            await raw.until(http2.Settings)

    asyncio.run(main())


def test_half_open_connections_make_room(tmp_path, engine):
    """The oldest connection without a handshake makes room for the newest; all end with their time."""

    async def main():
        limits = rpc.Limits(half_open=5, handshake=0.2)
        url = f"unix://{tmp_path}/s.sock"
        async with rpc.serve(url, Service().methods(), engine=engine, limits=limits) as server:
            silent = []
            for _ in range(20):
                sock = socket.socket(socket.AF_UNIX)
                sock.connect(str(tmp_path / "s.sock"))
                silent.append(sock)
            await settle(lambda: server.half_open == 5)
            client = await rpc.connect(server.url, engine=engine)
            assert (await client.unary(ECHO, b"x")).message == b"x"
            await settle(lambda: server.half_open == 0 and server.connections == 1)
            await client.aclose()
            for sock in silent:
                sock.close()

    asyncio.run(main())


def test_connections_are_bounded(tmp_path):
    """Beyond the limit a connection is closed at once; when one goes, the next is served."""

    async def main():
        limits = rpc.Limits(connections=2)
        async with rpc.serve(f"unix://{tmp_path}/s.sock", Service().methods(), limits=limits) as server:
            first, second = [await rpc.connect(server.url) for _ in range(2)]
            with pytest.raises(Unavailable):
                await rpc.connect(server.url)
            await first.aclose()
            await settle(lambda: server.connections == 1)
            third = await rpc.connect(server.url)
            assert (await third.unary(ECHO, b"x")).message == b"x"
            await third.aclose()
            await second.aclose()

    asyncio.run(main())


def test_a_thousand_idle_connections(tmp_path, engine):
    """A thousand silent connections cost memory alone: calls are served, and all end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip("this machine allows too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))

    async def main():
        async with rpc.serve(f"unix://{tmp_path}/s.sock", Service().methods(), engine=engine) as server:
            clients = [await rpc.connect(server.url, engine="ng") for _ in range(1000)]
            assert server.connections == 1000
            assert server.half_open == 0
            for client in clients[::100]:
                assert (await client.unary(ECHO, b"x")).message == b"x"
            await asyncio.gather(*(client.aclose() for client in clients))
            await settle(lambda: server.connections == 0)

    before = open_descriptors()
    try:
        asyncio.run(main())
        assert open_descriptors() == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_drain_lets_running_calls_end(engine):
    """While the server drains, running calls end well, new ones are refused; it ends with the last."""

    async def main():
        async with pair(engine) as (service, server, client):
            call = asyncio.ensure_future(client.unary(WAIT, b"slow"))
            await settle(lambda: service.calls)
            ending = asyncio.ensure_future(server.aclose(grace=5))
            await settle(lambda: client.closed)
            with pytest.raises(Unavailable, match="connect again"):
                await client.unary(ECHO, b"")
            with pytest.raises(Unavailable):
                await rpc.connect(server.url)
            began = time.monotonic()
            service.gate.set()
            assert (await call).message == b"slow"
            await ending
            assert time.monotonic() - began < 4  # the grace is 5
            assert server.connections == 0

    asyncio.run(main())


def test_drain_ends_after_its_grace(engine):
    """A call that does not end in time is cancelled, and can be made again; a stream is told why it ends."""

    async def main():
        async with pair(engine) as (service, server, client):
            call = asyncio.ensure_future(client.unary(WAIT, b""))
            answers = client.stream(HOLD, b"")
            await anext(answers)
            await settle(lambda: service.calls)
            await server.aclose(grace=0.05)
            with pytest.raises(Unanswered):
                await call
            with pytest.raises(Unavailable, match="going away"):
                await anext(answers)
            assert service.cancelled == 2

    asyncio.run(main())


def test_an_idle_server_drains_at_once(engine):
    """Without running calls the grace is not used up."""

    async def main():
        async with pair(engine) as (_, server, client):
            began = time.monotonic()
            await server.aclose(grace=30)
            assert time.monotonic() - began < 20  # the grace is 30
            assert client.closed

    asyncio.run(main())


def test_a_restarted_server_takes_its_address_over(tmp_path):
    """The socket file goes with its server, never that of a successor; a second server is refused."""

    async def main():
        url = f"unix://{tmp_path}/s.sock"
        async with rpc.serve(url, {}) as first:
            with pytest.raises(Conflict, match="live server"):
                async with rpc.serve(url, {}):
                    pass
            assert (tmp_path / "s.sock").stat().st_mode & 0o777 == 0o600
            (tmp_path / "s.sock").unlink()
            async with rpc.serve(url, {}, socket_mode=0o666):
                await first.aclose()
                assert (tmp_path / "s.sock").stat().st_mode & 0o777 == 0o666
        assert not (tmp_path / "s.sock").exists()

    asyncio.run(main())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_other_users_are_refused_without_identity():
    """Without TLS a unix socket takes its own user and root, and closes everybody else."""
    url = f"unix://@nsmesh-uid-{os.getpid()}-{time.monotonic_ns()}"
    script = f"""
import os, socket
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.connect("\\0{url.removeprefix("unix://@")}"); s.settimeout(5)
print(s.recv(100))
"""

    async def main():
        async with rpc.serve(url, Service().methods()) as server:
            command = [sys.executable, "-c", script]
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, timeout=20, check=True
            )
            assert done.stdout == b"b''\n"
            client = await rpc.connect(server.url)
            assert (await client.unary(ECHO, b"x")).message == b"x"
            await client.aclose()

    asyncio.run(main())


def test_handlers_errors_end_streams_in_the_middle(engine):
    """A stream whose server drains, times out or is cancelled never ends as if it were whole."""

    async def main():
        async with pair(engine) as (_, _, client):
            deadline = asyncio.get_running_loop().time() + 0.05
            with pytest.raises((TimedOut, Remote, Exhausted)):
                async for _ in client.stream(HOLD, b"", deadline=deadline):
                    pass

    asyncio.run(main())


def test_no_descriptor_leaks_over_many_connections(engine):
    """A hundred connections with calls and descriptors leave as many descriptors open as before."""

    async def main():
        async with pair(engine) as (_, server, _):
            for _ in range(100):
                client = await rpc.connect(server.url, engine=engine)
                client.send_fd("/proc/self/ns/net")
                await client.unary(ECHO, b"x")
                await client.aclose()

    asyncio.run(main())
    from nsmesh.rpc.descriptors import SHARED

    SHARED.close()
    before = open_descriptors()
    asyncio.run(main())
    SHARED.close()
    assert open_descriptors() == before


def test_a_cancelled_drain_still_ends(engine):
    """Who is tired of waiting for a drain and cancels it gets an ended server all the same."""

    async def main():
        async with pair(engine) as (service, server, client):
            call = asyncio.ensure_future(client.unary(WAIT, b""))
            await settle(lambda: service.calls)
            ending = asyncio.ensure_future(server.aclose(grace=60))
            await settle(lambda: client.closed)
            ending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ending
            assert server.connections == 0
            with pytest.raises(Unavailable):
                await call

    asyncio.run(main())
