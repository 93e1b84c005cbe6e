"""Two trust domains with a CA and a Workload API each; and an identity that is replaced while calls run."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

import pytest

from nsmesh import rpc
from nsmesh.chains.workload_api import served_workload_api
from nsmesh.chains.workload_client import fetched_identity
from nsmesh.core.errors import MeshError
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.entries import Entries, Entry
from nsmesh.security.workload_api import WorkloadApi

ME = frozenset({f"unix:uid:{os.geteuid()}"})
ECHO, COUNT = "/a.B/Echo", "/a.B/Count"


class Domain:
    """A trust domain with one entry, for whoever asks."""

    def __init__(self, folder, name, *federates_with, ttl=3600.0):
        self.url = f"unix://{folder}/{name}.sock"
        self.ca = CertificateAuthority.open(folder / name, name)
        entry = Entry(ME, f"spiffe://{name}/workload", ttl, federates_with)
        self.api = WorkloadApi(self.ca, Entries(entry))

    async def identity(self, stack):
        await stack.enter_async_context(served_workload_api(self.api, self.url))
        return await stack.enter_async_context(fetched_identity(self.url, wait=10))


async def echo(call, message):
    return call.peer.spiffe_id.encode()


async def call(url, identity):
    client = await rpc.connect(url, identity=identity)
    try:
        return await client.unary(ECHO, b"")
    finally:
        await client.aclose(0)


def test_federated_domains_speak_and_others_do_not(tmp_path):
    """Each side has the other's bundle from its own Workload API; whom nobody federates with is refused."""

    async def main():
        one = Domain(tmp_path, "one.nsm", "two.nsm")
        two = Domain(tmp_path, "two.nsm", "one.nsm")
        three = Domain(tmp_path, "three.nsm", "one.nsm")  # it trusts, and nobody trusts it
        for domain, others in ((one, (two,)), (two, (one,)), (three, (one,))):
            for other in others:
                domain.api.federate(other.ca.bundle())
        async with AsyncExitStack() as stack:
            ours, theirs, strangers = [await domain.identity(stack) for domain in (one, two, three)]
            served = rpc.serve(f"unix://{tmp_path}/s.sock", {ECHO: rpc.Unary(echo)}, identity=ours)
            server = await stack.enter_async_context(served)
            client = await rpc.connect(server.url, identity=theirs)
            assert client.peer.spiffe_id == "spiffe://one.nsm/workload"
            assert (await client.unary(ECHO, b"")).message == b"spiffe://two.nsm/workload"
            await client.aclose()
            with pytest.raises(MeshError):
                await call(server.url, strangers)

    asyncio.run(main())


def test_an_identity_is_replaced_while_a_call_runs(tmp_path):
    """At half of a short life both sides get a new SVID; the call goes on, later ones show the new one."""

    async def main():
        domain = Domain(tmp_path, "short.nsm", ttl=4.0)
        leaves = set()

        async def count(call, message):
            number = 0
            while True:
                yield b"%d" % number
                number += 1
                await asyncio.sleep(0.05)

        async with AsyncExitStack() as stack:
            identity = await domain.identity(stack)
            rotated = asyncio.Event()
            identity.on_rotation(rotated.set)
            methods = {ECHO: rpc.Unary(echo), COUNT: rpc.ServerStream(count)}
            served = rpc.serve(f"unix://{tmp_path}/s.sock", methods, identity=identity)
            server = await stack.enter_async_context(served)
            pool = rpc.Pool(identity=identity)
            stack.push_async_callback(pool.aclose)
            first = await pool.get(server.url)
            leaves.add(first.peer.certificate)
            stream = first.stream(COUNT, b"")
            numbers = [await anext(stream)]
            for _ in range(2):
                rotated.clear()
                async with asyncio.timeout(20):
                    while not rotated.is_set():
                        numbers.append(await anext(stream))
                client = await pool.get(server.url)
                leaves.add(client.peer.certificate)
                assert (await client.unary(ECHO, b"")).message == b"spiffe://short.nsm/workload"
            numbers += [await anext(stream) for _ in range(5)]
            await stream.aclose()
        assert [int(one) for one in numbers] == list(range(len(numbers)))
        assert len(leaves) == 3

    asyncio.run(main())
