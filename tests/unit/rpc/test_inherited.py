"""Sockets that somebody else opened: found by address, served, and left open; who is dead is no peer."""

import asyncio
import os
import socket
import subprocess
import sys
import time

import pytest

from nsmesh import rpc
from nsmesh.core.errors import Invalid
from nsmesh.rpc import inherited, listener
from nsmesh.rpc.address import parse
from nsmesh.rpc.dialing import is_awaited
from nsmesh.rpc.listening import listen


@pytest.fixture(autouse=True)
def _none_left():
    yield
    inherited.drop_unclaimed()


async def echo(call, message):
    return message


METHODS = {"/test.Echo/Echo": rpc.Unary(echo)}
SERVER = """
import asyncio, os, sys
from nsmesh import rpc
from nsmesh.rpc import inherited, listener

async def pid(call, message):
    return str(os.getpid()).encode()

async def main():
    os.environ["LISTEN_PID"] = str(os.getpid())
    inherited.take_from_environment(os.environ)
    assert not [name for name in os.environ if name.startswith("LISTEN")]
    async with rpc.serve(sys.argv[1], {"/test.Echo/Echo": rpc.Unary(pid)}):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_passed_socket_is_served_and_outlives_its_server(tmp_path):
    """Who connects while nobody serves waits and is answered; the file stays when the server ends."""

    async def main():
        path = tmp_path / "server.sock"
        url = f"unix://{path}"
        with listen(parse(url), 0o600) as held:
            for _ in range(2):
                waiting = asyncio.ensure_future(rpc.connect(url))
                await asyncio.sleep(0.05)
                assert not waiting.done()
                inherited.take([os.dup(held.fileno())])
                async with rpc.serve(url, METHODS):
                    assert inherited.unclaimed() == []
                    client = await waiting
                    assert (await client.unary("/test.Echo/Echo", b"x")).message == b"x"
                    await client.aclose()
                assert path.exists()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("tcp://127.0.0.1:0", "tcp://127.0.0.2:{port}"),
        ("tcp://:0", "tcp://127.0.0.1:{port}"),
        ("tcp://[::1]:0", "tcp://127.0.0.1:{port}"),
        ("unix://@nsmesh-passed-{pid}", "unix:///nsmesh-passed-{pid}"),
    ],
)
def test_a_passed_socket_is_found_by_its_address(url, other):
    """Host and port, or the name, must be the ones that are asked for."""
    sock = listen(parse(url.format(pid=os.getpid())), 0o600)
    port = sock.getsockname()[1] if sock.family != socket.AF_UNIX else 0
    inherited.take([sock.detach()])
    assert len(inherited.unclaimed()) == 1
    assert inherited.claim(parse(other.format(port=port or 1, pid=os.getpid()))) is None
    found = inherited.claim(parse(url.format(pid=os.getpid()).replace(":0", f":{port}")))
    assert found is not None
    found.close()
    assert inherited.unclaimed() == []


def test_what_is_no_listening_socket_is_refused(tmp_path):
    """The error says which descriptor, and the descriptor is not closed."""
    pair = socket.socketpair()
    with pytest.raises(Invalid, match=f"descriptor {pair[0].fileno()} .* does not listen"):
        inherited.take([pair[0].fileno()])
    with (tmp_path / "file").open("w") as file, pytest.raises(Invalid, match="is no socket"):
        inherited.take([file.fileno()])
    pair[0].send(b"still open")


def test_variables_of_another_process_are_not_ours():
    """``LISTEN_PID`` of somebody else means nothing; a count that is none is an error."""
    inherited.take_from_environment(environment := {"LISTEN_PID": "1", "LISTEN_FDS": "1", "A": "b"})
    assert environment == {"A": "b"}
    assert inherited.unclaimed() == []
    with pytest.raises(Invalid, match="LISTEN_FDS='many'"):
        inherited.take_from_environment({"LISTEN_FDS": "many"})


def test_the_peer_is_who_serves_not_who_opened_or_died(tmp_path):
    """A client is told the pid of the process that answers, also one that waited since the last one died."""

    async def main():
        url = f"unix://{tmp_path}/server.sock"
        with listen(parse(url), 0o600) as held:
            pids = []
            for _ in range(2):
                waiting = asyncio.ensure_future(rpc.connect(url))
                await asyncio.sleep(0.05)
                child = start(url, held)
                client = await (waiting if pids else ready(child, url))
                answered = int((await client.unary("/test.Echo/Echo", b"")).message)
                assert answered == child.pid
                assert client.peer.pid == child.pid
                pids.append(answered)
                await client.aclose()
                child.kill()
                child.wait()
                child.stdout.close()
                if len(pids) == 1:
                    waiting.cancel()
            assert pids[0] != pids[1]

    asyncio.run(main())


async def ready(child, url):
    assert await asyncio.to_thread(child.stdout.readline)
    return await rpc.connect(url)


def start(url, held):
    """Start a server as systemd does: its socket is descriptor 3."""
    os.set_inheritable(held.fileno(), True)  # noqa: FBT003 - its face
    command = f'exec "$@" 3<&{held.fileno()}' if held.fileno() != 3 else 'exec "$@"'
    return subprocess.Popen(
        ["bash", "-c", command, "bash", sys.executable, "-c", SERVER, url],
        pass_fds=[held.fileno()],
        stdout=subprocess.PIPE,
        env={**os.environ, "LISTEN_FDS": "1"},
    )


def test_the_end_of_a_server_waits_for_calls_not_for_streams(tmp_path):
    """``drain`` takes no new connection, lets a call end, and does not wait for who watches for ever."""

    async def main():
        gate = asyncio.Event()

        async def wait(call, message):
            await gate.wait()
            return message

        async def watch(call, message):
            yield b"first"
            await asyncio.Event().wait()

        methods = {"/t/Wait": rpc.Unary(wait), "/t/Watch": rpc.ServerStream(watch)}
        async with rpc.serve(f"unix://{tmp_path}/server.sock", methods) as server:
            client = await rpc.connect(server.url)
            events = client.stream("/t/Watch", b"")
            await anext(events)
            call = asyncio.ensure_future(client.unary("/t/Wait", b"x"))
            await asyncio.sleep(0.05)
            draining = asyncio.ensure_future(server.drain(5.0))
            await asyncio.sleep(0.05)
            assert not draining.done()
            assert client.closed
            begun = time.monotonic()
            gate.set()
            assert (await call).message == b"x"
            await draining
            assert time.monotonic() - begun < 2.0
            await events.aclose()
            await client.aclose()

    asyncio.run(main())


def test_a_socket_that_is_left_is_known_to_be_awaited(tmp_path):
    """Who serves is not awaited; who was left or died is, until a successor takes a connection."""

    async def main():
        url = f"unix://{tmp_path}/server.sock"
        address = parse(url)
        assert not is_awaited(address)
        with listen(address, 0o600) as held:
            assert not is_awaited(address)
            inherited.take([os.dup(held.fileno())])
            ours = listener.Listener(url, 0o600)
            assert not is_awaited(address)
            listener.leave([ours])
            assert is_awaited(address)
            ours.close()
            child = start(url, held)
            assert await asyncio.to_thread(child.stdout.readline)
            client = await rpc.connect(url)
            assert client.peer.pid == child.pid
            assert not is_awaited(address)
            await client.aclose()
            child.kill()
            child.wait()
            child.stdout.close()
            assert is_awaited(address)
        assert not is_awaited(address)
        assert not is_awaited(parse("tcp://127.0.0.1:1"))

    asyncio.run(main())
