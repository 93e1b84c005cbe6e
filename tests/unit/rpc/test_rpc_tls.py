"""TLS with SPIFFE certificates: who talks to whom, and how refusals read."""

import asyncio
import ssl
import time

import pytest
from rpc_helpers import Authority, Service, pair
from structlog.testing import capture_logs

from nsmesh import rpc
from nsmesh.core.errors import MeshError, TimedOut, Unauthorized, Unavailable
from nsmesh.rpc.server import HANDSHAKES

ECHO = "/test.Echo/Echo"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def identities(authority, tmp_path):
    return authority.identity("manager", tmp_path), authority.identity("client", tmp_path)


@pytest.mark.parametrize("url", [None, "tcp://127.0.0.1:0"])
def test_both_sides_know_each_other(engine, url, identities):
    """SPIFFE ID and certificate of the other are known on both sides; large messages pass."""

    async def main():
        options = {"identity": identities[0], "client_identity": identities[1]}
        async with pair(engine, url, **options) as (service, _, client):
            assert (await client.unary(ECHO, bytes(1 << 20))).message == bytes(1 << 20)
            for peer, identity in ((client.peer, identities[0]), (service.calls[0].peer, identities[1])):
                assert peer.spiffe_id == identity.spiffe_id
                assert peer.certificate == identity.der
                assert (peer.uid is None) == (url is not None)

    asyncio.run(main())


def test_many_calls_over_tls(engine, identities):
    """Concurrent calls and streams work as in plaintext."""

    async def main():
        async with pair(engine, identity=identities[0]) as (_, _, client):
            answers = await asyncio.gather(*(client.unary(ECHO, bytes(5000)) for _ in range(100)))
            assert {answer.message for answer in answers} == {bytes(5000)}
            assert len([m async for m in client.stream("/test.Echo/Count", b"500 5000")]) == 500

    asyncio.run(main())


def test_descriptors_pass_beside_tls(engine, identities, tmp_path):
    """Descriptors travel below TLS, and belong to the SPIFFE ID that sent them."""

    async def take(call, message):
        import os

        dev, ino = (int(part) for part in message.decode().removeprefix("inode://").split("/"))
        os.close(await call.descriptors.wait(dev, ino, call.deadline))
        return b"ok"

    async def main():
        extra = {"/t/Take": rpc.Unary(take)}
        async with pair(engine, identity=identities[0], client_identity=identities[1], extra=extra) as (
            _,
            server,
            client,
        ):
            deadline = asyncio.get_running_loop().time() + 5
            url = client.send_fd(str(tmp_path))
            assert (await client.unary("/t/Take", url.encode(), deadline=deadline)).message == b"ok"
            other = await rpc.connect(server.url, identity=identities[0])
            with pytest.raises(TimedOut):
                await other.unary("/t/Take", url.encode(), deadline=asyncio.get_running_loop().time() + 0.1)
            await other.aclose()

    asyncio.run(main())


def test_a_foreign_server_is_unauthorized(authority, tmp_path):
    """A server whose certificate we do not trust is refused by us, with its address in the text."""

    async def main():
        stranger = Authority("other.mesh")
        theirs = stranger.identity("server", tmp_path, trusts=[authority, stranger])
        ours = authority.identity("client", tmp_path)
        async with rpc.serve(f"unix://{tmp_path}/s.sock", Service().methods(), identity=theirs) as server:
            with pytest.raises(Unauthorized, match=r"the certificate of unix://.* was refused"):
                await rpc.connect(server.url, identity=ours)

    asyncio.run(main())


def test_a_foreign_client_is_unauthorized(authority, tmp_path):
    """A client whose certificate the server does not trust learns that, although TLS 1.3 tells it late."""

    async def main():
        stranger = Authority("other.mesh")
        theirs = stranger.identity("client", tmp_path, trusts=[authority, stranger])
        ours = authority.identity("server", tmp_path)
        async with rpc.serve(f"unix://{tmp_path}/s.sock", Service().methods(), identity=ours) as server:
            with pytest.raises(Unauthorized, match="refused our certificate"):
                await rpc.connect(server.url, identity=theirs)
            assert server.connections == 0

    asyncio.run(main())


@pytest.mark.parametrize("who", [0, 1])
def test_the_identity_has_the_last_word(identities, who, tmp_path):
    """A certificate that TLS accepts and ``verify`` does not is refused on either side."""

    async def main():
        identities[who].refuses = True
        async with rpc.serve(
            f"unix://{tmp_path}/s.sock", Service().methods(), identity=identities[0]
        ) as server:
            expected = Unauthorized if who else Unavailable
            with pytest.raises(expected):
                await rpc.connect(server.url, identity=identities[1])

    asyncio.run(main())


@pytest.mark.parametrize("secure", ["client", "server"])
def test_tls_against_plaintext_fails_fast(identities, secure, tmp_path):
    """A client and a server that disagree about TLS find out at once, and say what to check."""

    async def main():
        server_identity = identities[0] if secure == "server" else None
        client_identity = identities[1] if secure == "client" else None
        async with rpc.serve(
            f"unix://{tmp_path}/s.sock", Service().methods(), identity=server_identity
        ) as server:
            began = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                await rpc.connect(server.url, identity=client_identity)
            assert time.monotonic() - began < 5  # a handshake may take longer
            assert caught.value.remedy

    asyncio.run(main())


def test_a_peer_without_http2_is_refused(identities, tmp_path):
    """ALPN h2 is demanded."""

    async def main():
        async with rpc.serve(
            f"unix://{tmp_path}/s.sock", Service().methods(), identity=identities[0]
        ) as server:
            context = identities[1].client_context()
            context.set_alpn_protocols(["http/1.1"])
            identities[1].client_context = lambda: context
            with pytest.raises(MeshError):
                await rpc.connect(server.url, identity=identities[1])

    asyncio.run(main())


def test_a_client_without_certificate_is_refused(identities, tmp_path):
    """Nobody is anonymous over TLS."""

    async def main():
        async with rpc.serve(
            f"unix://{tmp_path}/s.sock", Service().methods(), identity=identities[0]
        ) as server:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(cadata=identities[1].bundle.decode())
            context.set_alpn_protocols(["h2"])
            identities[1].client_context = lambda: context
            with pytest.raises(Unauthorized, match="certificate"):
                await rpc.connect(server.url, identity=identities[1])

    asyncio.run(main())


def test_a_rotated_identity_is_used_for_new_connections(authority, tmp_path):
    """Contexts are asked for at each connection: running ones keep the old certificate."""

    async def main():
        ours = authority.identity("server", tmp_path)
        mine = authority.identity("client", tmp_path)
        async with rpc.serve(f"unix://{tmp_path}/s.sock", Service().methods(), identity=ours) as server:
            first = await rpc.connect(server.url, identity=mine)
            old = ours.der
            ours.__dict__.update(authority.identity("server", tmp_path).__dict__)
            second = await rpc.connect(server.url, identity=mine)
            assert first.peer.certificate == old
            assert second.peer.certificate == ours.der
            assert (await first.unary(ECHO, b"still")).message == b"still"
            await first.aclose()
            await second.aclose()

    asyncio.run(main())


def test_half_a_tls_handshake_is_dropped(identities, tmp_path):
    """A client that begins TLS and stops is dropped in time, and others are served meanwhile."""

    async def main():
        limits = rpc.Limits(handshake=0.1)
        methods = Service().methods()
        async with rpc.serve(
            f"unix://{tmp_path}/s.sock", methods, identity=identities[0], limits=limits
        ) as server:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s.sock")
            writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            client = await rpc.connect(server.url, identity=identities[1])
            assert (await client.unary(ECHO, b"x")).message == b"x"
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()
            await client.aclose()

    asyncio.run(main())


def test_ending_in_the_middle_of_handshakes(identities, tmp_path):
    """A server that ends while connections are in their TLS handshake closes them, and waits for nobody."""

    async def main():
        url = f"unix://{tmp_path}/s.sock"
        async with rpc.serve(url, Service().methods(), identity=identities[0]) as server:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s.sock")
            while not server.half_open:  # noqa: ASYNC110 - one turn of the loop
                await asyncio.sleep(0)
            began = time.monotonic()
            await server.aclose(grace=5)
            assert time.monotonic() - began < 4  # the grace is 5
            assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


def test_who_only_looks_whether_the_port_answers_is_no_line_in_the_log(identities):
    """A probe that connects and closes is counted and not told; one that begins to speak is told."""

    async def main():
        async with pair(None, "tcp://127.0.0.1:0", identity=identities[0]) as (_, server, _client):
            host, port = server.url.removeprefix("tcp://").split(":")
            for said, result in ((b"", "silent"), (b"\x16\x03\x01", "broken")):
                with capture_logs() as lines:
                    before = await count(result)
                    _reader, writer = await asyncio.open_connection(host, int(port))
                    writer.write(said)
                    await writer.drain()
                    writer.close()
                    async with asyncio.timeout(5):
                        while await count(result) == before:  # noqa: ASYNC110 - a socket
                            await asyncio.sleep(0.01)
                told = [line for line in lines if "handshake" in line["event"]]
                assert bool(told) == bool(said)

    async def count(result):
        return sum(one.value for one in await HANDSHAKES.samples() if one.labels["result"] == result)

    asyncio.run(main())
