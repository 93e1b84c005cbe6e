"""Memif from client to endpoint by way of manager and forwarder: both meet at the endpoint's socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from descriptor_mesh import OURS, DescriptorMesh

from nsmesh.core.element import Element
from nsmesh.core.errors import MeshError
from nsmesh.datapath.memif.peer import connect, listen
from nsmesh.elements.receive_fd import ReceiveFdClient
from nsmesh.mechanisms.kernel import OWN_NAMESPACE, Kernel
from nsmesh.mechanisms.memif import Memif


class Listening(Element):
    """Stands in an endpoint: listens at the socket of each connection, and sends every frame back."""

    def __init__(self):
        self.listeners = {}

    async def request(self, call, request, next):
        answer = await next.request(call, request)
        path = answer.mechanism.parameters["socketfile"]
        if path not in self.listeners:
            self.listeners[path] = listen(path, lambda frame: frame)
        return answer

    async def close(self, call, connection, next):
        for path in list(self.listeners):
            self.listeners.pop(path).close()
        await next.close(call, connection)


class MemifMesh(DescriptorMesh):
    """Forwarder and endpoint have KERNEL and MEMIF; the endpoint listens at a file of its own folder."""

    forwarders = (Kernel, Memif)
    listening = Listening

    async def start_endpoint(self, name, stack=None):
        self.own = self.listening()
        self.watch, watch = self.own, self.watch
        try:
            return await super().start_endpoint(name, stack)
        finally:
            self.watch = watch

    def call(self, seconds):
        return OURS.within(seconds)

    def plugins(self):
        return [Memif(folder=self.private, inode_url=OWN_NAMESPACE)]

    def function(self):
        return (ReceiveFdClient(),)

    def wanted(self, number=0, *, url=OWN_NAMESPACE):
        request = super().wanted(number, url=url)
        (preference,) = request.mechanism_preferences
        preference.type = "MEMIF"
        preference.parameters.pop("name")
        return request


def scenario(body):
    async def run():
        async with asyncio.timeout(30):
            async with MemifMesh() as mesh:
                await body(mesh)

    asyncio.run(run())


async def exchanged(path):
    """Connect to a socket and return whether a frame comes back."""
    back = asyncio.Event()
    peer = connect(path, lambda _: back.set())
    await asyncio.wait_for(peer.connected.wait(), 5)
    assert peer.send([bytes(60)]) == 1
    await asyncio.wait_for(back.wait(), 5)
    peer.close()


def test_client_and_endpoint_meet_at_one_socket():
    """The socket comes as a descriptor, through manager and forwarder; no wire is made for it."""

    async def body(mesh):
        answer = await mesh.ask(1)
        path = answer.mechanism.parameters["inodeURL"].removeprefix("file://")
        assert path.startswith("/proc/")
        assert Path(path).is_socket()
        await exchanged(path)
        assert not mesh.datapath.calls["apply"]
        again = mesh.wanted(1)
        again.connection.CopyFrom(answer)
        refreshed = await mesh.nsc.request(OURS.within(5), again)
        await exchanged(refreshed.mechanism.parameters["inodeURL"].removeprefix("file://"))
        await mesh.close(1)
        assert not mesh.own.listeners

    scenario(body)


def test_a_kernel_client_of_a_memif_endpoint_is_told():
    """This forwarder makes no wire between them, and the error says what does."""

    async def body(mesh):
        request = DescriptorMesh.wanted(mesh, 2)
        with pytest.raises(MeshError, match=r"MEMIF|KERNEL"):
            await mesh.nsc.request(OURS.within(5), request)

    scenario(body)
