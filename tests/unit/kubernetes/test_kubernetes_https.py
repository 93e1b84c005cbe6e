"""The HTTPS server that API servers call: what it answers, and what nobody can take from it."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import asynccontextmanager

import pytest

from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.core.metrics import DECLARED
from nsmesh.kubernetes.https import Certificate, serving
from nsmesh.kubernetes.https_session import Answer, Limits
from nsmesh.security.serving import issue, make_signer

SIGNER = make_signer(time.time(), 3600)
NAME = "webhook.test.svc"


def trusting(signer=SIGNER) -> ssl.SSLContext:
    from cryptography.hazmat.primitives.serialization import Encoding

    context = ssl.create_default_context(cadata=signer.certificate.public_bytes(Encoding.PEM).decode())
    context.set_alpn_protocols(["http/1.1"])
    return context


async def echo(request):
    if request.path == "/fail":
        raise RuntimeError("unforeseen")
    return Answer(200, f"{request.method} {request.path} {len(request.body)}".encode(), "text/plain")


@asynccontextmanager
async def server(handler=echo, **limits):
    certificate = Certificate()
    certificate.show(issue(SIGNER, [NAME], time.time(), 600)[0])
    limits = {"leaving": 0.2, **limits}
    async with serving("127.0.0.1", 0, certificate, handler, Limits(**limits)) as running:
        running.shown = certificate
        yield running


@asynccontextmanager
async def caller(running, context=None):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", running.port, ssl=context or trusting(), server_hostname=NAME
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def ask(pair, text: bytes):
    """Send bytes and read one answer: status, headers, body."""
    reader, writer = pair
    writer.write(text)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


GET = b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /mutate?timeout=10s HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST /m HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"


def test_requests_of_one_connection_are_answered_in_turn():
    """Any number, with lengths or chunks, two at once as well; the query is no part of the path."""

    async def main():
        async with server() as running, caller(running) as pair:
            assert (await ask(pair, GET))[2] == b"GET /ready 0"
            assert (await ask(pair, POST))[2] == b"POST /mutate 3"
            assert (await ask(pair, CHUNKED))[2] == b"POST /m 3"
            assert (await ask(pair, GET + POST))[2] == b"GET /ready 0"
            assert (await ask(pair, b""))[2] == b"POST /mutate 3"

    asyncio.run(main())


def test_a_caller_that_asks_whether_it_may_send_is_told():
    """``Expect: 100-continue``, before the body."""

    async def main():
        async with server() as running, caller(running) as (reader, writer):
            writer.write(POST.replace(b"\r\n\r\nabc", b"\r\nExpect: 100-continue\r\n\r\n"))
            assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
            assert (await ask((reader, writer), b"abc"))[0] == 200

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n", 413),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n80\r\n" + 128 * b"x" + b"\r\n",
            413,
        ),
        (b"no http\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + 2000 * b"y", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    ],
)
def test_too_much_and_nonsense_end_the_connection(text, status):
    """The caller is told why; others are served on."""

    async def main():
        async with server(body=100, head=1000) as running, caller(running) as pair:
            found, headers, _ = await ask(pair, text)
            assert (found, headers["connection"]) == (status, "close")
            assert await pair[0].read() == b""
            async with caller(running) as other:
                assert (await ask(other, GET))[0] == 200

    asyncio.run(main())


@pytest.mark.parametrize("text", [b"GET / HT", POST[:-1]])
def test_who_takes_too_long_is_left(text):
    """Half of a request holds a connection no longer than its limit; an idle one has its own."""

    async def main():
        async with server(request=0.2, idle=0.6) as running, caller(running) as (reader, writer):
            writer.write(text)
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            async with caller(running) as pair:
                await ask(pair, GET)
                async with asyncio.timeout(5):
                    assert await pair[0].read() == b""
            assert DECLARED["nsm_webhook_closed"].values["time",] >= before + 2

    before = DECLARED["nsm_webhook_closed"].values.get(("time",), 0)
    asyncio.run(main())


def test_who_does_not_take_an_answer_is_left():
    """An answer that nobody reads holds a connection no longer than a request may take."""

    async def large(_request):
        return Answer(200, bytes(32 << 20))

    async def main():
        async with server(large, request=0.3, connections=1) as running, caller(running) as (_, writer):
            writer.write(GET)
            writer.transport.pause_reading()
            async with asyncio.timeout(10), caller(running) as (reader, other):
                other.write(GET)
                assert await reader.readexactly(15) == b"HTTP/1.1 200 \r\n"

    asyncio.run(main())


def test_a_caller_without_tls_holds_nothing():
    """What never finishes its handshake is closed, and its place given to another."""

    async def main():
        async with server(handshake=0.3, connections=1) as running:
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            async with asyncio.timeout(10), caller(running) as pair:
                assert (await ask(pair, GET))[0] == 200
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            async with asyncio.timeout(5):
                with pytest.raises((EOFError, OSError)):
                    await reader.readexactly(1)
            writer.close()

    asyncio.run(main())


def test_idle_connections_make_place():
    """Where all places are taken, the one that is idle longest goes; one that is busy stays."""
    going = asyncio.Event()

    async def slow(request):
        if request.path == "/slow":
            await going.wait()
        return Answer(200, b"done")

    async def main():
        async with server(slow, connections=3) as running, caller(running) as busy:
            busy[1].write(GET.replace(b"/ready", b"/slow"))
            async with caller(running) as first, caller(running) as second:
                await ask(first, GET)
                await ask(second, GET)
                async with asyncio.timeout(5), caller(running) as third:
                    assert (await ask(third, GET))[2] == b"done"
                assert await first[0].read() == b""
                assert (await ask(second, GET))[0] == 200
            going.set()
            assert (await ask(busy, b""))[2] == b"done"

    asyncio.run(main())


@pytest.mark.parametrize(
    "said", [None, b"", b"POST /mutate HTTP/1.1\r\nHost: x\r\n"], ids=["tcp", "tls", "half"]
)
def test_many_who_say_little_are_in_nobodys_way(said):
    """No handshake, no request, half of one: a caller is served at once, whatever their time would be."""

    async def main():
        async with server(connections=8, handshake=60, request=60, idle=60) as running:
            writers = []
            for _ in range(40):
                context = {"ssl": trusting(), "server_hostname": NAME} if said is not None else {}
                _, writer = await asyncio.open_connection("127.0.0.1", running.port, **context)
                writer.write(said or b"")
                writers.append(writer)
            async with asyncio.timeout(5):
                for _ in range(20):
                    async with caller(running) as pair:
                        assert (await ask(pair, GET))[0] == 200
            for writer in writers:
                writer.transport.abort()

    asyncio.run(main())


def test_what_the_handler_did_not_foresee_is_the_servers_fault():
    """Status 500, and the connection goes on."""

    async def main():
        async with server() as running, caller(running) as pair:
            assert (await ask(pair, GET.replace(b"/ready", b"/fail")))[0] == 500
            assert (await ask(pair, GET))[0] == 200

    asyncio.run(main())


def test_a_new_certificate_is_shown_at_the_next_handshake():
    """Connections that stand go on; one that is unusable changes nothing; without any nobody is served."""
    other = make_signer(time.time(), 3600)

    async def main():
        async with server() as running, caller(running) as before:
            running.shown.show(issue(other, [NAME], time.time(), 600)[0])
            mixed = issue(SIGNER, [NAME], time.time(), 600)[0].split(b"-----BEGIN PRIVATE")[0]
            for wrong in (b"", b"x", mixed):
                with pytest.raises(Invalid, match="cannot be used"):
                    running.shown.show(wrong)
            assert (await ask(before, GET))[0] == 200
            async with caller(running, trusting(other)) as after:
                assert (await ask(after, GET))[0] == 200
            with pytest.raises(ssl.SSLError):
                async with caller(running):
                    pass
        async with serving("127.0.0.1", 0, Certificate(), echo, Limits(leaving=0.1)) as bare:
            with pytest.raises(OSError):
                async with caller(bare):
                    pass

    asyncio.run(main())


def test_who_is_connected_at_the_end_is_told_to_come_anew():
    """A request that runs is answered, and the answer closes the connection."""
    going = asyncio.Event()

    async def slow(_request):
        going.set()
        await asyncio.sleep(0.2)
        return Answer(200, b"done")

    async def main():
        async with asyncio.TaskGroup() as group:
            async with server(slow, leaving=2.0) as running:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", running.port, ssl=trusting(), server_hostname=NAME
                )
                asking = group.create_task(ask((reader, writer), GET))
                await going.wait()
            status, headers, _ = await asking
            assert (status, headers["connection"]) == (200, "close")
            assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


def test_an_address_that_is_taken_is_told():
    """The error names it."""

    async def main():
        async with server() as running:
            with pytest.raises(Unavailable, match=f"127.0.0.1:{running.port}"):
                async with serving("127.0.0.1", running.port, Certificate(), echo):
                    pass

    asyncio.run(main())
