"""The pool: one connection per neighbour, dialled once, anew when it is lost."""

import asyncio
import socket
import time
import types

import pytest
from rpc_helpers import Authority, Service

from nsmesh import rpc
from nsmesh.core.errors import TimedOut, Unavailable
from nsmesh.rpc import pool as pool_module

ECHO = "/test.Echo/Echo"


def counted(monkeypatch, delay=0.0):
    """Count dials, and make each take some time."""
    dials = []

    async def connect(url, **options):
        dials.append(url)
        if delay:
            await asyncio.sleep(delay)
        return await rpc.connect(url, **options)

    monkeypatch.setattr(pool_module, "connect", connect)
    return dials


def test_callers_share_one_connection(tmp_path, monkeypatch):
    """However many ask, at once or later, one URL is dialled once."""
    dials = counted(monkeypatch, 0.01)

    async def main():
        async with rpc.serve(f"unix://{tmp_path}/s.sock", Service().methods()) as server:
            pool = rpc.Pool()
            clients = await asyncio.gather(*(pool.get(server.url) for _ in range(20)))
            assert {id(client) for client in clients} == {id(await pool.get(server.url))}
            assert len(dials) == 1
            await pool.aclose()
            assert clients[0].closed
            with pytest.raises(Unavailable, match="closed"):
                await pool.get(server.url)

    asyncio.run(main())


def test_a_connection_that_is_cut_fails_who_waits_there(tmp_path):
    """Whoever waits hears at once that it is over; the next use dials anew; another URL is not touched."""

    async def main():
        async with rpc.serve(f"unix://{tmp_path}/s.sock", Service().methods()) as server:
            pool = rpc.Pool()
            client = await pool.get(server.url)
            waiting = asyncio.ensure_future(client.unary("/test.Echo/Wait", b""))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            pool.cut(f"unix://{tmp_path}/another.sock")
            pool.cut(server.url)
            async with asyncio.timeout(1):
                with pytest.raises(Unavailable, match="was closed"):
                    await waiting
            another = await pool.get(server.url)
            assert another is not client
            assert (await another.unary(ECHO, b"x")).message == b"x"
            await pool.aclose()

    asyncio.run(main())


def test_a_dial_that_is_cut_fails_who_waits_for_it(tmp_path):
    """A socket that takes connections and never answers: all who dial hear at once that it is given up."""

    async def main():
        path = f"{tmp_path}/mute.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as mute:
            mute.bind(path)
            mute.listen()
            pool = rpc.Pool(timeout=30)
            both = [asyncio.ensure_future(pool.get(f"unix://{path}")) for _ in range(2)]
            await asyncio.sleep(0.05)
            assert not any(one.done() for one in both)
            pool.cut(f"unix://{path}")
            async with asyncio.timeout(1):
                got = await asyncio.gather(*both, return_exceptions=True)
            assert all(isinstance(error, Unavailable) and "known to be dead" in error.what for error in got)
            assert not pool.is_awaited(f"unix://{path}")
            await pool.aclose()

    asyncio.run(main())


def test_callers_share_one_failure(tmp_path, monkeypatch):
    """A refused dial fails at once for all who wait for it, and is tried again at the next use."""
    dials = counted(monkeypatch, 0.01)

    async def main():
        pool = rpc.Pool()
        url = f"unix://{tmp_path}/s.sock"
        got = await asyncio.gather(*(pool.get(url) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(error, Unavailable) for error in got)
        assert len(dials) == 1
        async with rpc.serve(url, Service().methods()):
            assert (await (await pool.get(url)).unary(ECHO, b"x")).message == b"x"
        await pool.aclose()

    asyncio.run(main())


def test_a_cancelled_dialler_hands_over(tmp_path, monkeypatch):
    """When who dials is cancelled, one of those who wait dials instead; a cancelled waiter harms nobody."""
    dials = counted(monkeypatch, 0.02)

    async def main():
        async with rpc.serve(f"unix://{tmp_path}/s.sock", Service().methods()) as server:
            pool = rpc.Pool()
            first, second, third = (asyncio.ensure_future(pool.get(server.url)) for _ in range(3))
            await asyncio.sleep(0.005)
            first.cancel()
            second.cancel()
            assert not (await third).closed
            assert first.cancelled()
            assert second.cancelled()
            assert len(dials) == 2
            await pool.aclose()

    asyncio.run(main())


def test_a_lost_connection_is_dialled_anew(tmp_path):
    """After the server restarted, the next use gets a new connection; the old one is not kept."""

    async def main():
        pool = rpc.Pool()
        url = f"unix://{tmp_path}/s.sock"
        async with rpc.serve(url, Service().methods()):
            old = await pool.get(url)
            await old.unary(ECHO, b"x")
        assert old.closed
        assert not pool._clients
        with pytest.raises(Unavailable):
            await pool.get(url)
        async with rpc.serve(url, Service().methods()):
            assert (await (await pool.get(url)).unary(ECHO, b"y")).message == b"y"
        await pool.aclose()

    asyncio.run(main())


def test_forgetting_closes_one(tmp_path):
    """``forget`` closes the connection to one URL, and does nothing for others."""

    async def main():
        async with rpc.serve(f"unix://{tmp_path}/s.sock", Service().methods()) as server:
            pool = rpc.Pool()
            client = await pool.get(server.url)
            await pool.forget("unix:///elsewhere")
            await pool.forget(server.url)
            assert client.closed
            assert not (await pool.get(server.url)).closed
            await pool.aclose()

    asyncio.run(main())


def test_a_silent_neighbour_times_out(tmp_path):
    """A dial takes no longer than the pool's timeout."""

    async def main():
        server = await asyncio.start_unix_server(lambda *_: asyncio.sleep(60), tmp_path / "silent.sock")
        with pytest.raises(TimedOut):
            await rpc.Pool(timeout=0.05).get(f"unix://{tmp_path}/silent.sock")
        server.close()

    asyncio.run(main())


def test_a_rotation_leads_new_calls_over_new_connections(tmp_path):
    """After our keys have changed, new calls dial anew; running streams go on, then their connection ends."""

    async def main():
        authority = Authority("td.test")
        ours, theirs = authority.identity("client", tmp_path), authority.identity("server", tmp_path)
        service = Service()
        async with rpc.serve(f"unix://{tmp_path}/s.sock", service.methods(), identity=theirs) as server:
            pool = rpc.Pool(identity=ours)
            old = await pool.get(server.url)
            stream = old.stream("/test.Echo/Count", b"-1 10")
            await anext(stream)
            for listener in ours.listeners:
                listener()
            new = await pool.get(server.url)
            assert new is not old
            await anext(stream)  # what runs goes on
            await stream.aclose()
            for _ in range(100):
                if old.wire.dead:
                    break
                await asyncio.sleep(0.01)
            assert old.wire.dead
            assert (await new.unary(ECHO, b"still here")).message == b"still here"
            await pool.aclose()
            assert not ours.listeners

    asyncio.run(main())


def test_a_rotation_of_the_server_leads_new_calls_over_new_connections(tmp_path, engine):
    """After a server's keys have changed, its clients dial anew; what runs in mid-flight is answered."""

    async def main():
        authority = Authority("td.test")
        ours, theirs = authority.identity("client", tmp_path), authority.identity("server", tmp_path)
        service = Service()
        url = f"unix://{tmp_path}/s.sock"
        async with rpc.serve(url, service.methods(), identity=theirs, engine=engine) as server:
            pool = rpc.Pool(identity=ours, engine=engine)
            old = await pool.get(server.url)
            stream = old.stream("/test.Echo/Count", b"-1 10")
            await anext(stream)
            for listener in tuple(theirs.listeners):
                listener()
            early = (await (await pool.get(server.url)).unary(ECHO, b"before it is told")).message
            assert early == b"before it is told"
            for _ in range(500):
                if old.closed:
                    break
                await asyncio.sleep(0.01)
            assert old.closed
            new = await pool.get(server.url)
            assert new is not old
            await anext(stream)  # what runs goes on
            await stream.aclose()
            assert (await new.unary(ECHO, b"still here")).message == b"still here"
            for _ in range(500):
                if old.wire.dead:
                    break
                await asyncio.sleep(0.01)
            assert old.wire.dead
            await pool.aclose()
        assert not theirs.listeners

    asyncio.run(main())


def test_a_connection_is_renewed_when_its_peer_has_rotated(tmp_path, monkeypatch):
    """At half of the leaf's life, however late it was dialled; of an older leaf, at half of what was left."""
    began = time.time()
    clock = [began]
    monkeypatch.setattr(
        pool_module, "time", types.SimpleNamespace(time=lambda: clock[0], monotonic=time.monotonic)
    )

    async def main():
        authority = Authority("td.test")
        ours, theirs = authority.identity("client", tmp_path), authority.identity("server", tmp_path)
        url = f"unix://{tmp_path}/s.sock"
        async with rpc.serve(url, Service().methods(), identity=theirs) as server:
            pool = rpc.Pool(identity=ours)

            async def at(seconds):
                clock[0] = began + seconds
                return await pool.get(server.url)

            # the leaf lives from a minute ago for an hour from now: its half is over after 1770 s
            first = await at(900)
            assert await at(1760) is first
            second = await at(1780)
            assert second is not first
            assert await at(2680) is second
            assert await at(2700) is not second
            await pool.aclose()

    asyncio.run(main())
