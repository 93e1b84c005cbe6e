"""The Workload API over real sockets: server, client, and both halves of mTLS."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

import pytest

from nsmesh import rpc
from nsmesh.chains import workload_client
from nsmesh.chains.workload_api import methods, served_workload_api
from nsmesh.chains.workload_client import FIRST_PAUSE, fetched_identity
from nsmesh.core import virtual
from nsmesh.core.errors import Invalid, MeshError, Remote, Status, TimedOut, Unauthorized, Unavailable
from nsmesh.core.pauses import GROWTH, JITTER
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.entries import DEFAULT_TEMPLATE, Entries, Entry, Template
from nsmesh.security.workload_api import WorkloadApi
from nsmesh.security.workload_names import SERVICE

ME = f"unix:uid:{os.geteuid()}"


def entry(name, ttl=3600.0):
    return Entry(frozenset({ME}), f"spiffe://my.nsm/{name}", ttl)


@pytest.fixture
def url(tmp_path):
    return f"unix://{tmp_path}/api.sock"


def api_in(tmp_path, *entries, clock=None):
    ca = CertificateAuthority.open(tmp_path / "ca", "my.nsm", clock=clock)
    return WorkloadApi(ca, Entries(*entries, template=Template(DEFAULT_TEMPLATE, "my.nsm")), clock=clock)


def test_two_processes_get_identities_and_speak_mtls(tmp_path, url):
    """SVIDs over the socket, then a TLS server and client made of them: each knows the other's ID."""

    async def main():
        api = api_in(tmp_path)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(served_workload_api(api, url))
            source = await stack.enter_async_context(fetched_identity(url, wait=5))
            assert source.spiffe_id == f"spiffe://my.nsm/uid/{os.geteuid()}"
            seen = []

            async def echo(call, message):
                seen.append(call.peer.spiffe_id)
                return message

            served = rpc.serve(f"unix://{tmp_path}/x.sock", {"/a.B/C": rpc.Unary(echo)}, identity=source)
            server = await stack.enter_async_context(served)
            client = await rpc.connect(server.url, identity=source)
            assert (await client.unary("/a.B/C", b"hello")).message == b"hello"
            assert client.peer.spiffe_id == seen[0] == source.spiffe_id
            await client.aclose()

    asyncio.run(main())


def test_a_push_rotates_the_identity(tmp_path, url):
    """A change of entries reaches the source over the open stream, and listeners hear of it."""

    async def main():
        api = api_in(tmp_path)
        async with served_workload_api(api, url), fetched_identity(url, wait=5) as source:
            rotated = asyncio.Event()
            source.on_rotation(rotated.set)
            api.entries.register(entry("named"))
            async with asyncio.timeout(5):
                await rotated.wait()
            assert source.spiffe_id == "spiffe://my.nsm/named"

    asyncio.run(main())


def test_half_lives_go_by(tmp_path, url):
    """Over a day of virtual time the identity is never older than half of its life."""
    clock = virtual.VirtualClock()

    async def main():
        api = api_in(tmp_path, entry("x", 3600), clock=clock)
        async with served_workload_api(api, url, clock=clock), fetched_identity(url, clock=clock) as source:
            first = source.svid
            for _ in range(48):
                await asyncio.sleep(1790)
                await _settled(lambda: source.svid.not_after - clock.now() > 1700)
            assert source.svid is not first

    virtual.run(main())


async def _settled(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not settle")


class Script:
    """A Workload API that answers from a list: an error, or a real stream."""

    def __init__(self, api, answers):
        self.api, self.answers, self.times = api, list(answers), []

    def methods(self):
        real = methods(self.api)[SERVICE + "FetchX509SVID"]

        async def fetch(call, message):
            self.times.append(asyncio.get_running_loop().time())
            answer = self.answers.pop(0) if self.answers else None
            if answer is not None:
                raise answer
            async for body in real.handler(call, message):
                yield body

        return {SERVICE + "FetchX509SVID": rpc.ServerStream(fetch)}


def test_what_passes_is_tried_again(tmp_path, url):
    """Unavailable, PermissionDenied and Unknown are asked again, soon at first and then more seldom."""
    clock = virtual.VirtualClock()

    async def main():
        errors = [Unavailable("not yet"), Unauthorized("no identity issued"), Remote(Status.UNKNOWN, "odd")]
        script = Script(api_in(tmp_path, clock=clock), errors)
        async with rpc.serve(url, script.methods()), fetched_identity(url, clock=clock) as source:
            assert source.spiffe_id
        steps = [b - a for a, b in zip(script.times, script.times[1:], strict=False)]
        for turn, step in enumerate(steps):
            least = FIRST_PAUSE * GROWTH**turn
            assert least <= step <= least * (1 + JITTER) + 0.01
        assert len(steps) == len(errors)

    virtual.run(main())


@pytest.mark.parametrize("error", [Remote(Status.CANCELLED, "cancelled"), Invalid("security header missing")])
def test_a_final_answer_ends_the_start(tmp_path, url, error):
    """CANCELLED and INVALID_ARGUMENT are raised at once, as the answer they are."""

    async def main():
        script = Script(api_in(tmp_path), [error])
        async with rpc.serve(url, script.methods()):
            with pytest.raises(MeshError, match=error.what) as caught:
                async with fetched_identity(url, wait=5):
                    pass
            assert caught.value.status == error.status

    asyncio.run(main())


def test_an_api_that_comes_later_is_found(tmp_path, url, monkeypatch):
    """A client that starts first waits; one with a limit gives up and says so."""
    monkeypatch.setattr(workload_client, "FIRST_PAUSE", 0.02)

    async def main():
        with pytest.raises(TimedOut, match=r"gave no SVID within 0\.1 s"):
            async with fetched_identity(url, wait=0.1):
                pass
        api = api_in(tmp_path)

        async def later():
            await asyncio.sleep(0.1)
            async with served_workload_api(api, url):
                await asyncio.sleep(5)

        server = asyncio.create_task(later())
        async with fetched_identity(url, wait=5) as source:
            assert source.spiffe_id
        server.cancel()

    asyncio.run(main())


def test_an_api_that_restarts_is_followed(tmp_path, url, monkeypatch):
    """The identity stays while the API is away, and is renewed when it is back."""
    monkeypatch.setattr(workload_client, "FIRST_PAUSE", 0.02)

    async def main():
        api = api_in(tmp_path)
        async with AsyncExitStack() as stack:
            async with served_workload_api(api, url):
                source = await stack.enter_async_context(fetched_identity(url, wait=5))
            assert source.spiffe_id.endswith(f"uid/{os.geteuid()}")
            api.entries.register(entry("after"))
            rotated = asyncio.Event()
            source.on_rotation(rotated.set)
            await stack.enter_async_context(served_workload_api(api, url))
            async with asyncio.timeout(5):
                await rotated.wait()
            assert source.spiffe_id == "spiffe://my.nsm/after"

    asyncio.run(main())


def test_the_socket_is_open_to_all_users(tmp_path, url):
    """Who asks is told by its credentials, not kept out by the file's mode."""

    async def main():
        async with served_workload_api(api_in(tmp_path), url):
            assert (tmp_path / "api.sock").stat().st_mode & 0o777 == 0o666

    asyncio.run(main())
