"""Chains with identities, tokens and policies, over TLS on real sockets."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from nsmesh import rpc
from nsmesh.chains.client import client
from nsmesh.chains.registry import memory_registry
from nsmesh.chains.secured import Secured
from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import chain
from nsmesh.core.errors import MeshError, Unauthorized
from nsmesh.core.peering import Dialled
from nsmesh.core.probes import Count
from nsmesh.elements import serve
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.dial import Dial
from nsmesh.elements.peer import RemotePeers
from nsmesh.elements.update_path import UpdatePath
from nsmesh.elements.update_token import UpdateToken
from nsmesh.model.messages import Connection, NetworkService, NetworkServiceRequest, Path, PathSegment
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import SvidSource

OURS = Call(peer=Peer(in_process=True))


class Mesh:
    """Identities of one CA, and what they serve."""

    def __init__(self, folder, stack):
        self.folder, self.stack = folder, stack
        self.ca = CertificateAuthority.open(folder / "ca", "my.nsm")
        self.count = Count()

    def secured(self, name, ca=None):
        ca = ca or self.ca
        return Secured(SvidSource(ca.issue(f"spiffe://my.nsm/{name}"), [self.ca.bundle()]))

    async def peers(self, who):
        pool = rpc.Pool(identity=who.identity)
        self.stack.push_async_callback(pool.aclose)
        return RemotePeers(pool)

    async def serve(self, name, methods, who):
        server = rpc.serve(f"unix://{self.folder}/{name}.sock", methods, identity=who.identity)
        return (await self.stack.enter_async_context(server)).url

    async def nsmgr(self):
        who = self.secured("nsmgr")
        server = chain(
            UpdatePath("nsmgr"), Begin(), UpdateToken(who.tokens), *who.policies(), self.count, name="nsmgr"
        )
        await self.stack.enter_async_context(server.running())
        return await self.serve("nsmgr", serve.connections(server), who)

    async def client(self, url, who, name="nsc"):
        made = client(name, manager=url, peers=await self.peers(who), tokens=who.tokens, checks=who.checks())
        return await self.stack.enter_async_context(made.running())

    async def registry(self):
        who = self.secured("registry")
        registry = memory_registry(front=who.registry_front())
        await self.stack.enter_async_context(registry.running())
        return await self.serve("registry", serve.registry(registry), who)

    async def manager_of_registry(self, url):
        who = self.secured("nsmgr")
        made = chain(
            *who.registry_front(),
            Begin(),
            Dial(await self.peers(who), target=url),
            *who.registry_checks(),
            ClientToken(who.tokens),
            end=Dialled(),
        )
        await self.stack.enter_async_context(made.running())
        return await self.serve("nsmgr-registry", serve.registry(made), who)

    async def registrant(self, url, who):
        made = chain(
            Dial(await self.peers(who), target=url),
            *who.registry_checks(),
            ClientToken(who.tokens),
            end=Dialled(),
        )
        return await self.stack.enter_async_context(made.running())


def in_mesh(tmp_path, scenario):
    async def main():
        async with AsyncExitStack() as stack:
            await scenario(Mesh(tmp_path, stack))

    asyncio.run(main())


def request():
    path = Path(path_segments=[PathSegment(name="nsc", id="nsc-0")])
    return NetworkServiceRequest(connection=Connection(id="nsc-0", network_service="s", path=path))


def test_request_refresh_and_close_pass_over_tls(tmp_path):
    """Both halves' policies are content with what the other half sends."""

    async def scenario(mesh):
        nsc = await mesh.client(await mesh.nsmgr(), mesh.secured("nsc"))
        connection = await nsc.request(OURS, request())
        assert [one.name for one in connection.path.path_segments] == ["nsc", "nsmgr"]
        assert all(one.token for one in connection.path.path_segments)
        await nsc.request(OURS, NetworkServiceRequest(connection=connection))
        await nsc.close(OURS, connection)
        assert mesh.count.done == {"request": 2, "close": 1}

    in_mesh(tmp_path, scenario)


def test_a_stranger_does_not_get_past_tls(tmp_path):
    """An SVID of another CA of the same name is refused in the handshake."""

    async def scenario(mesh):
        other = CertificateAuthority.open(tmp_path / "other", "my.nsm")
        nsc = await mesh.client(await mesh.nsmgr(), mesh.secured("nsc", other))
        with pytest.raises(MeshError):
            await nsc.request(OURS, request())
        assert not mesh.count.seen

    in_mesh(tmp_path, scenario)


def test_a_refusal_reaches_the_caller_as_a_sentence(tmp_path):
    """A client with the manager's own name is told which rule refused it, across the wire."""

    async def scenario(mesh):
        nsc = await mesh.client(await mesh.nsmgr(), mesh.secured("nsc"), name="nsmgr")
        wrong = request()
        wrong.connection.path.path_segments[0].name = "nsmgr"
        with pytest.raises(Unauthorized, match=r"^no sufficient privileges: prev_token_signed") as caught:
            await nsc.request(OURS, wrong)
        assert "different names" in str(caught.value) or "right index" in str(caught.value)

    in_mesh(tmp_path, scenario)


def test_registrations_pass_through_a_manager_over_tls(tmp_path):
    """Three hops of path header over real sockets; nobody else gets the name until it is free."""

    async def scenario(mesh):
        url = await mesh.manager_of_registry(await mesh.registry())
        first = await mesh.registrant(url, mesh.secured("nse-1"))
        second = await mesh.registrant(url, mesh.secured("nse-2"))
        ids = [f"spiffe://my.nsm/{one}" for one in ("nse-1", "nsmgr", "registry")]
        for _ in range(2):
            stored = await first.register(OURS, NetworkService(name="s"))
            assert list(stored.path_ids) == ids
        with pytest.raises(Unauthorized, match=r"s belongs to spiffe://my\.nsm/nse-1"):
            await second.register(OURS, NetworkService(name="s"))
        with pytest.raises(Unauthorized):
            await second.unregister(OURS, NetworkService(name="s"))
        await first.unregister(OURS, stored)
        assert (await second.register(OURS, NetworkService(name="s"))).path_ids[0].endswith("nse-2")

    in_mesh(tmp_path, scenario)
