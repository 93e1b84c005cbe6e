"""Calls over real sockets, with both engines: what arrives, what fails, what is cancelled."""

import asyncio
import contextlib
import os
import time
from pathlib import Path

import pytest
from rpc_helpers import pair, table

from nsmesh import rpc
from nsmesh.core.errors import (
    Conflict,
    Exhausted,
    Internal,
    Invalid,
    MeshError,
    Remote,
    Status,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unimplemented,
)
from nsmesh.core.virtual import run

ECHO, WAIT, COUNT, HOLD, BOTH, LAZY = (
    f"/test.Echo/{name}" for name in ("Echo", "Wait", "Count", "Hold", "Both", "Lazy")
)


async def settle(condition, seconds=5.0):
    """Wait until something comes true."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0)


async def each(messages):
    for message in messages:
        yield message


@pytest.mark.parametrize("url", [None, "tcp://127.0.0.1:0"])
@pytest.mark.parametrize("size", [0, 1, 1000, 16379, 16380, 70_000, 1 << 20, 4 << 20])
def test_unary_echo(engine, url, size):
    """Messages of any size up to the limit, empty ones too, arrive whole on unix and tcp."""

    async def main():
        async with pair(engine, url) as (_, _, client):
            message = os.urandom(size)
            assert (await client.unary(ECHO, message)).message == message

    asyncio.run(main())


@pytest.mark.parametrize("other", ["ng", "h2"])
def test_engines_understand_each_other(engine, other):
    """A client with either engine talks to a server with either engine."""

    async def main():
        async with pair(engine, client_engine=other) as (_, _, client):
            assert (await client.unary(ECHO, bytes(200_000))).message == bytes(200_000)
            assert len([m async for m in client.stream(COUNT, b"300 1000")]) == 300
            assert [m async for m in client.bidi(BOTH, each([b"a", bytes(90_000), b"c"]))] == [
                b"a",
                bytes(90_000),
                b"c",
            ]

    asyncio.run(main())


def test_many_calls_at_once(engine):
    """Calls of one connection do not disturb each other; more than the server allows at once wait."""

    async def main():
        async with pair(engine, limits=rpc.Limits(streams=7)) as (_, server, client):
            answers = await asyncio.gather(*(client.unary(ECHO, b"%d" % number) for number in range(200)))
            assert [answer.message for answer in answers] == [b"%d" % number for number in range(200)]
            assert server.connections == 1

    asyncio.run(main())


def test_metadata_both_ways(engine):
    """Metadata arrives in order with repeated keys, -bin values as bytes; initial metadata comes back."""

    async def reply(call, message):
        call.reply["path"] = '{"index":1}'
        call.reply["raw-bin"] = "\x00\xff"
        return repr(call.metadata).encode()

    async def main():
        async with pair(engine, extra={"/test.Echo/Reply": rpc.Unary(reply)}) as (_, _, client):
            sent = (("path", "{}"), ("b", "1"), ("a", "2"), ("b", "3"), ("t-bin", "\x00\x80\xff"))
            answer = await client.unary("/test.Echo/Reply", b"", metadata=sent)
            assert answer.message == repr(sent).encode()
            assert answer.metadata == (("path", '{"index":1}'), ("raw-bin", "\x00\xff"))
            with pytest.raises(Invalid):
                await client.unary(ECHO, b"", metadata=[("te", "x")])

    asyncio.run(main())


def test_the_call_knows_its_peer(engine):
    """On a unix socket both sides know user and process of the other."""

    async def main():
        async with pair(engine) as (service, _, client):
            await client.unary(ECHO, b"")
            for peer in (service.calls[0].peer, client.peer):
                assert (peer.uid, peer.gid, peer.pid) == (os.getuid(), os.getgid(), os.getpid())
                assert peer.spiffe_id == ""

    asyncio.run(main())


@pytest.mark.parametrize(
    "error",
    [
        Unauthorized("no sufficient privileges: ünïcode 100%", remedy="ask the owner"),
        Conflict("taken"),
        Remote(Status.DATA_LOSS, "gone"),
        Exhausted("x" * 20_000),
    ],
)
def test_errors_of_handlers_arrive(engine, error):
    """Class, sentence and remedy of a handler's error arrive, from unary calls and from streams."""

    async def fail(call, message):
        raise error

    async def begin(call, message):
        yield b"one"
        raise error

    async def main():
        extra = {"/t/Fail": rpc.Unary(fail), "/t/Begin": rpc.ServerStream(begin)}
        async with pair(engine, extra=extra) as (_, _, client):
            with pytest.raises(type(error)) as caught:
                await client.unary("/t/Fail", b"")
            assert str(caught.value)[:8000] == str(error)[:8000]
            answers = client.stream("/t/Begin", b"")
            assert await anext(answers) == b"one"
            with pytest.raises(type(error)) as caught:
                await anext(answers)
            assert caught.value.status == error.status

    asyncio.run(main())


def test_faults_of_handlers_stay_inside(engine):
    """A bug in a handler is INTERNAL with a neutral text; the connection lives on."""

    async def bug(call, message):
        raise KeyError("the secret")

    async def main():
        async with pair(engine, extra={"/t/Bug": rpc.Unary(bug)}) as (_, _, client):
            with pytest.raises(Internal) as caught:
                await client.unary("/t/Bug", b"")
            assert "secret" not in str(caught.value)
            assert (await client.unary(ECHO, b"x")).message == b"x"

    asyncio.run(main())


def test_an_unknown_method_is_unimplemented(engine):
    """The text names the method; a large message behind it does no harm."""

    async def main():
        async with pair(engine) as (_, _, client):
            for size in (0, 3 << 20):
                with pytest.raises(Unimplemented, match="Nothing"):
                    await client.unary("/test.Echo/Nothing", bytes(size))
            assert (await client.unary(ECHO, b"x")).message == b"x"

    asyncio.run(main())


def test_a_deadline_ends_the_call_on_both_sides(engine):
    """At the deadline the client gets TimedOut, the handler is cancelled, and it saw the same deadline."""

    async def main():
        async with pair(engine) as (service, server, client):
            loop = asyncio.get_running_loop()
            began = loop.time()
            with pytest.raises(TimedOut, match="Echo/Wait"):
                await client.unary(WAIT, b"", deadline=began + 15)
            assert loop.time() == pytest.approx(began + 15, abs=0.1)
            assert service.calls[0].deadline == pytest.approx(began + 15, abs=0.1)
            await settle(lambda: service.cancelled == 1 and server.running == 0)
            with pytest.raises(TimedOut, match="no time was left"):
                await client.unary(WAIT, b"", deadline=began)
            with pytest.raises(TimedOut):
                await anext(client.bidi(LAZY, each([b"x"]), deadline=loop.time() + 1))

    run(main())


def test_the_server_keeps_the_deadline_by_itself(engine):
    """A client that forgets its deadline is answered DEADLINE_EXCEEDED by the server."""

    async def main():
        async with pair(engine) as (service, _, client):
            task = asyncio.ensure_future(
                client.unary(WAIT, b"", deadline=asyncio.get_running_loop().time() + 5)
            )
            await settle(lambda: service.calls)
            client.deadlines.clear()
            with pytest.raises(TimedOut, match="did not end by its deadline"):
                await task
            assert service.cancelled == 1

    run(main())


def test_a_bare_cancel_at_the_deadline_is_a_timeout(engine):
    """RST_STREAM(CANCEL) without trailers means the deadline when it is due, and CANCELLED before."""

    async def main():
        async with pair(engine) as (service, server, client):
            for wait, kind in ((4.95, TimedOut), (1.0, Remote)):
                service.calls.clear()
                deadline = asyncio.get_running_loop().time() + 5
                task = asyncio.ensure_future(client.unary(WAIT, b"", deadline=deadline))
                await settle(lambda: service.calls)
                await asyncio.sleep(wait)
                (connection,) = server._connections
                for stream in list(connection._calls):
                    connection.engine.reset(stream, 8)
                    connection.flush()
                with pytest.raises(kind):
                    await task
                for running in list(connection._calls.values()):
                    running.drop()
                connection._calls.clear()

    run(main())


def test_cancelling_reaches_the_handler(engine):
    """A cancelled unary call, and a stream that is closed early, cancel their handlers."""

    async def main():
        async with pair(engine) as (service, server, client):
            task = asyncio.ensure_future(client.unary(WAIT, b""))
            await settle(lambda: service.calls)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await settle(lambda: service.cancelled == 1)
            async with contextlib.aclosing(client.stream(HOLD, b"")) as answers:
                assert await anext(answers) == b"first"
            await settle(lambda: service.cancelled == 2 and server.running == 0)
            assert not client.calls
            assert (await client.unary(ECHO, b"x")).message == b"x"

    asyncio.run(main())


def test_a_slow_reader_holds_a_stream_back(engine):
    """An endless stream stops at what the buffers hold while nobody reads, and then goes on."""

    async def main():
        async with pair(engine) as (service, _, client):
            async with contextlib.aclosing(client.stream(COUNT, b"-1 10000")) as answers:
                await anext(answers)
                await asyncio.sleep(0.1)
                made = service.made
                await asyncio.sleep(0.05)
                assert service.made == made < 300  # a window of 1 MiB, and the buffers beside it
                assert (await client.unary(ECHO, b"others go on")).message == b"others go on"
                for number in range(2, 1000):
                    assert (await anext(answers))[:8] == b"%8d" % number
            await settle(lambda: service.cancelled == 1)

    asyncio.run(main())


def test_a_slow_handler_holds_a_sender_back(engine):
    """A client's endless messages stop while the handler does not read, and all of them arrive in the end."""
    sent = 0

    async def messages():
        nonlocal sent
        for _ in range(500):
            sent += 1
            yield bytes(10_000)

    async def main():
        async with pair(engine) as (service, _, client):
            reading = asyncio.ensure_future(anext(client.bidi(LAZY, messages())))
            await asyncio.sleep(0.1)
            assert sent < 300
            service.gate.set()
            assert await reading == b"5000000"

    asyncio.run(main())


def test_a_slow_socket_holds_producers_back(engine):
    """When the peer takes no bytes at all, what a server makes stays within its buffers."""

    async def main():
        async with pair(engine) as (service, server, client):
            answers = client.stream(COUNT, b"-1 10000")
            await anext(answers)
            loop = asyncio.get_running_loop()
            loop.remove_reader(client.wire._fileno)
            await asyncio.sleep(0.05)
            made = service.made
            await asyncio.sleep(0.05)
            assert service.made == made
            (connection,) = server._connections
            assert connection.wire.buffered < 1 << 20
            loop.add_reader(client.wire._fileno, client.wire._readable)
            for _ in range(500):
                await anext(answers)
            await answers.aclose()

    asyncio.run(main())


def test_errors_of_sent_messages_surface(engine):
    """What the source of a bidirectional call raises reaches the reader, and cancels the call."""

    async def broken():
        yield b"one"
        raise Conflict("the source broke")

    async def main():
        async with pair(engine) as (_, server, client):
            with pytest.raises(Conflict, match="the source broke"):
                async for _ in client.bidi(BOTH, broken()):
                    pass
            await settle(lambda: server.running == 0)
            assert client.scope.tasks == 0

    asyncio.run(main())


def test_leaving_a_bidirectional_call_stops_its_sender(engine):
    """No task stays behind when the reader leaves."""

    async def endless():
        while True:
            yield b"x" * 1000

    async def main():
        async with pair(engine) as (_, server, client):
            async with contextlib.aclosing(client.bidi(BOTH, endless())) as answers:
                for _ in range(50):
                    await anext(answers)
            assert client.scope.tasks == 0
            await settle(lambda: server.running == 0)

    asyncio.run(main())


def test_too_large_messages_are_refused(engine):
    """A message above the limit is refused by its sender; one that came anyway by its receiver."""

    async def huge(call, message):
        return bytes(5 << 20)

    async def main():
        async with pair(engine, extra={"/t/Huge": rpc.Unary(huge)}) as (_, server, client):
            with pytest.raises(Exhausted):
                await client.unary(ECHO, bytes((4 << 20) + 1))
            with pytest.raises(Exhausted, match="/t/Huge"):
                await client.unary("/t/Huge", b"")
            generous = await rpc.connect(server.url, engine=engine, limits=rpc.Limits(message=8 << 20))
            with pytest.raises(Exhausted, match="4194304"):
                await generous.unary(ECHO, bytes(5 << 20))
            assert (await generous.unary(ECHO, b"x")).message == b"x"
            await generous.aclose()

    asyncio.run(main())


def test_too_much_metadata_is_refused_alone(engine):
    """Metadata above 64 KiB fails its call with a text; the connection and other calls live on."""

    async def main():
        async with pair(engine) as (_, _, client):
            with pytest.raises(Exhausted, match="metadata of"):
                await client.unary(ECHO, b"", metadata=[("big", "x" * 70_000)])
            with pytest.raises(Exhausted, match="metadata of"):
                await client.unary(ECHO, b"", metadata=[("big", "x" * 300_000)])
            assert (await client.unary(ECHO, b"x", metadata=[("big", "x" * 60_000)])).message == b"x"

    asyncio.run(main())


def test_descriptors_both_ways(engine, tmp_path):
    """A descriptor goes with a request and one comes with its answer, found by the URLs in the messages."""
    (tmp_path / "back").touch()

    async def swap(call, message):
        dev, ino = (int(part) for part in message.decode().removeprefix("inode://").split("/"))
        fd = await call.descriptors.wait(dev, ino, call.deadline)
        assert os.fstat(fd).st_ino == ino
        os.close(fd)
        return call.send_fd(str(tmp_path / "back")).encode()

    async def main():
        shared = table()
        async with pair(engine, extra={"/t/Swap": rpc.Unary(swap)}, descriptors=shared) as (_, _, client):
            deadline = asyncio.get_running_loop().time() + 5
            url = client.send_fd("/proc/self/ns/net")
            found = Path("/proc/self/ns/net").stat()
            assert url == f"inode://{found.st_dev}/{found.st_ino}"
            answer = (await client.unary("/t/Swap", url.encode(), deadline=deadline)).message.decode()
            dev, ino = (int(part) for part in answer.removeprefix("inode://").split("/"))
            fd = await client.descriptors.wait(dev, ino, deadline)
            assert os.fstat(fd).st_ino == (tmp_path / "back").stat().st_ino
            os.close(fd)
        shared.close()

    asyncio.run(main())


def test_a_descriptor_of_an_earlier_connection_is_found(engine, tmp_path):
    """A peer that connects anew for each call is served with what it sent on the connection before."""

    async def take(call, message):
        dev, ino = (int(part) for part in message.split(b"/"))
        os.close(await call.descriptors.wait(dev, ino, call.deadline))
        return b"ok"

    async def main():
        shared = table()
        async with pair(engine, extra={"/t/Take": rpc.Unary(take)}, descriptors=shared) as (
            _,
            server,
            client,
        ):
            url = client.send_fd(str(tmp_path))
            await client.unary(ECHO, b"")
            await client.aclose()
            again = await rpc.connect(server.url, engine=engine)
            message = url.removeprefix("inode://").encode()
            deadline = asyncio.get_running_loop().time() + 5
            assert (await again.unary("/t/Take", message, deadline=deadline)).message == b"ok"
            await again.aclose()
        shared.close()

    asyncio.run(main())


def test_a_lost_connection_fails_its_calls(engine):
    """When the server dies all calls fail with UNAVAILABLE at once, and the client says that it is closed."""

    async def main():
        async with pair(engine) as (service, server, client):
            calls = [asyncio.ensure_future(client.unary(WAIT, b"")) for _ in range(3)]
            answers = client.stream(HOLD, b"")
            await anext(answers)
            await settle(lambda: len(service.calls) == 3)
            (connection,) = server._connections
            connection.wire.abort(Unavailable("killed by a test"))
            for call in calls:
                with pytest.raises(Unavailable):
                    await call
            with pytest.raises(Unavailable):
                await anext(answers)
            assert client.closed
            with pytest.raises(Unavailable, match="connect again"):
                await client.unary(ECHO, b"")
            await settle(lambda: service.cancelled == 4)

    asyncio.run(main())


def test_nobody_there(tmp_path):
    """Connecting to nothing fails at once, with what and where and what to do."""

    async def main():
        with pytest.raises(Unavailable, match=r"nobody listens on unix://.*/none.*start the server"):
            await rpc.connect(f"unix://{tmp_path}/none", timeout=30)

    asyncio.run(main())


def test_a_server_that_says_nothing_times_out(tmp_path):
    """A listener that accepts and stays silent is left after the timeout."""

    async def main():
        server = await asyncio.start_unix_server(lambda *_: asyncio.sleep(60), tmp_path / "silent.sock")
        with pytest.raises(TimedOut, match=r"handshake within 0\.05 s"):
            await rpc.connect(f"unix://{tmp_path}/silent.sock", timeout=0.05)
        server.close()

    asyncio.run(main())


def test_closing_waits_for_running_calls(engine):
    """``aclose`` lets a running call end, and takes no new one."""

    async def main():
        async with pair(engine) as (service, _, client):
            call = asyncio.ensure_future(client.unary(WAIT, b"slow"))
            await settle(lambda: service.calls)
            closing = asyncio.ensure_future(client.aclose(5))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await client.unary(ECHO, b"")
            service.gate.set()
            assert (await call).message == b"slow"
            await closing
            assert client.closed
            await client.aclose()

    asyncio.run(main())


def test_an_unread_stream_keeps_what_came_before_its_error(engine):
    """Messages that came before an error are read before it is raised."""

    async def some(call, message):
        for number in range(5):
            yield b"%d" % number
        raise Conflict("the end")

    async def main():
        async with pair(engine, extra={"/t/Some": rpc.ServerStream(some)}) as (_, _, client):
            answers = client.stream("/t/Some", b"")
            assert await anext(answers) == b"0"
            await asyncio.sleep(0.02)
            assert [await anext(answers) for _ in range(4)] == [b"1", b"2", b"3", b"4"]
            with pytest.raises(MeshError):
                await anext(answers)

    asyncio.run(main())
