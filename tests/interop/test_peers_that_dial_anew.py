"""Peers that make a connection for each call, as the field's do, and drop it: nothing of them stays."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import sys
from contextlib import AsyncExitStack, suppress

import pytest

from nsmesh import rpc
from nsmesh.conformance.actor import Peer
from nsmesh.conformance.provider import providing
from nsmesh.conformance.world import Addresses, world_of
from nsmesh.core.errors import MeshError
from nsmesh.core.peering import closing
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import MonitorScopeSelector, NetworkServiceEndpoint

pytestmark = pytest.mark.timeout(240)

ROUNDS = 350
"""Each makes two connections, or three, and up to three calls."""
WARM = 100
"""Rounds after which caches and pools have what they will have."""
BLOCKS_A_ROUND = 3.0
"""Blocks of Python memory that a round may leave, as ids in bounded memories; a message is dozens."""
TOKENS = 32
"""Tokens that are remembered, so that the warm-up fills what is bounded."""


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch):
    monkeypatch.setattr("nsmesh.security.token._CACHE", TOKENS)


def descriptors():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the folder of this process, which changes


async def settle():
    """Give what was dropped a moment to end."""
    for _ in range(20):
        await asyncio.sleep(0.01)
    gc.collect()


async def measured(one):
    """Do ``one`` over and over; return what stands after the warm-up and at the end."""
    seen = []
    for number in range(ROUNDS):
        await one(number)
        if number in (WARM - 1, ROUNDS - 1):
            await settle()
            seen.append((descriptors(), len(asyncio.all_tasks()), sys.getallocatedblocks()))
    return seen


def flat(seen):
    (files, tasks, blocks), (files_then, tasks_then, blocks_then) = seen
    assert files_then <= files  # fewer: what an earlier test had dropped is gone by now
    assert tasks_then == tasks
    assert (blocks_then - blocks) / (ROUNDS - WARM) < BLOCKS_A_ROUND


class Caller:
    """Makes a connection for each call, and closes it behind it, or just lets it fall."""

    def __init__(self, world, url):
        self.identity = world.tester.identity
        self.url = url

    async def __call__(self, work, *, rude=False):
        client = await rpc.connect(self.url, identity=self.identity, timeout=10)
        try:
            return await work(Peer(client, self.identity), client)
        finally:
            if rude:
                client.wire.abort(MeshError("dropped"))
            await client.aclose(0)


def scenario(body):
    async def main():
        async with AsyncExitStack() as stack:
            world = await stack.enter_async_context(world_of(Addresses()))
            provider = await stack.enter_async_context(providing(world))
            await body(world, provider, Caller(world, world.addresses.nsmgr))

    asyncio.run(main())


def test_requests_on_connections_of_their_own():
    """Request with a descriptor, a monitor left open, Close: each on a new connection, half of them rude."""

    async def body(world, provider, caller):
        first = await provider.ask(world.wanted("warm", provider.service))
        await (await world.nsmgr()).close(first)

        async def one(number):
            request = world.wanted(f"{number}", provider.service)

            async def ask(peer, client):
                client.passing.send("/proc/self/ns/net")
                answer = await peer.request(copy_of(request))
                async with closing(peer.monitor(MonitorScopeSelector())) as events:
                    await anext(events)
                return answer

            answer = await caller(ask, rude=number % 2 == 0)
            await caller(lambda peer, _: peer.close(answer), rude=number % 4 == 1)
            for seen in provider.seen.values():
                seen.requests.clear()
                seen.closed.clear()

        flat(await measured(one))

    scenario(body)


def test_registrations_and_watches_on_connections_of_their_own():
    """Register with a socket, a watch that nobody ends but by leaving, Unregister."""

    async def body(world, provider, caller):
        listener = socket.socket(socket.AF_UNIX)
        path = world.folder / "dials-anew.sock"
        listener.bind(str(path))

        async def one(number):
            entry = NetworkServiceEndpoint(
                name=world.name("dials-anew"), network_service_names=[provider.service]
            )

            async def register(peer, client):
                entry.url = client.passing.send(str(path))
                await peer.register(entry)
                stream = peer.watch(NetworkServiceEndpoint(network_service_names=[provider.service]))
                with suppress(MeshError):
                    await anext(stream)
                return stream

            stream = await caller(register, rude=number % 2 == 0)
            with suppress(MeshError):
                await stream.aclose()
            await caller(lambda peer, _: peer.unregister(NetworkServiceEndpoint(name=entry.name)))

        flat(await measured(one))
        listener.close()

    scenario(body)


def test_connections_without_a_call():
    """Hands that are shaken, and half of one; then nothing."""

    async def body(world, provider, caller):
        async def one(number):
            async def nothing(peer, client):
                client.passing.send("/proc/self/ns/net")

            await caller(nothing, rude=number % 2 == 0)
            half = socket.socket(socket.AF_UNIX)
            half.setblocking(False)  # noqa: FBT003 - its face
            await asyncio.get_running_loop().sock_connect(half, world.addresses.nsmgr.removeprefix("unix://"))
            await asyncio.get_running_loop().sock_sendall(half, b"\x16\x03\x01")
            half.close()

        flat(await measured(one))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > descriptors()

    scenario(body)
