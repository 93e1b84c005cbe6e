"""Requests that are on their way while identities rotate: nobody is refused for it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from nsmesh import rpc
from nsmesh.chains.client import client
from nsmesh.chains.secured import Secured
from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.peering import Dialled
from nsmesh.elements import serve
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.dial import Dial
from nsmesh.elements.peer import RemotePeers
from nsmesh.elements.update_path import UpdatePath
from nsmesh.elements.update_token import UpdateToken
from nsmesh.model.messages import Connection, NetworkServiceRequest, Path, PathSegment
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import SvidSource

OURS = Call(peer=Peer(in_process=True))


class Stop(Element):
    """Runs what is asked for while a Request stands here, on its way in and on its way out."""

    def __init__(self):
        self.inward = self.outward = lambda: None

    async def request(self, call, request, next):
        self.inward()
        answer = await next.request(call, request)
        self.outward()
        return answer


class Line:
    """A client, a manager and an endpoint in a row, each with its own identity, over TLS on real sockets."""

    def __init__(self, folder, stack):
        self.folder, self.stack = folder, stack
        self.ca = CertificateAuthority.open(folder / "ca", "my.nsm")
        self.at_nsmgr, self.at_nse = Stop(), Stop()
        self.who = {name: self._secured(name) for name in ("nsc", "nsmgr", "nse")}

    def _secured(self, name):
        return Secured(SvidSource(self.ca.issue(f"spiffe://my.nsm/{name}"), [self.ca.bundle()]))

    def rotate(self, *names):
        for name in names:
            self.who[name].identity.update(self.ca.issue(f"spiffe://my.nsm/{name}"), [self.ca.bundle()])

    async def _serve(self, name, made):
        await self.stack.enter_async_context(made.running())
        url = f"unix://{self.folder}/{name}.sock"
        served = rpc.serve(url, serve.connections(made), identity=self.who[name].identity)
        return (await self.stack.enter_async_context(served)).url

    async def _peers(self, name):
        pool = rpc.Pool(identity=self.who[name].identity)
        self.stack.push_async_callback(pool.aclose)
        return RemotePeers(pool)

    def _front(self, name):
        who = self.who[name]
        return UpdatePath(name), Begin(), UpdateToken(who.tokens), *who.policies()

    async def up(self):
        nse = await self._serve("nse", chain(*self._front("nse"), self.at_nse, name="nse"))
        nsmgr = self.who["nsmgr"]
        onward = Dial(await self._peers("nsmgr"), target=nse), ClientToken(nsmgr.tokens), *nsmgr.checks()
        url = await self._serve(
            "nsmgr", chain(*self._front("nsmgr"), self.at_nsmgr, *onward, end=Dialled(), name="nsmgr")
        )
        nsc = self.who["nsc"]
        made = client(
            "nsc", manager=url, peers=await self._peers("nsc"), tokens=nsc.tokens, checks=nsc.checks()
        )
        return await self.stack.enter_async_context(made.running())


def request():
    path = Path(path_segments=[PathSegment(name="nsc", id="nsc-0")])
    return NetworkServiceRequest(connection=Connection(id="nsc-0", network_service="s", path=path))


@pytest.mark.parametrize("names", [("nsmgr",), ("nse",), ("nsc",), ("nsc", "nsmgr", "nse")])
@pytest.mark.parametrize("where", ["nsmgr inward", "nsmgr outward", "nse inward", "nse outward"])
@pytest.mark.parametrize("first", [True, False])
def test_a_request_on_its_way_while_identities_rotate_is_granted(tmp_path, names, where, first):
    """Whoever rotates, at whatever point, on the first Request or on a refresh: it and what follows pass.

    Each hop checks the others' tokens against the leaf of the handshake, which is the one before.
    """

    async def main():
        async with AsyncExitStack() as stack:
            line = Line(tmp_path, stack)
            nsc = await line.up()
            connection = None if first else await nsc.request(OURS, request())
            stop, way = where.split()
            setattr(getattr(line, f"at_{stop}"), way, lambda: line.rotate(*names))
            asked = request() if connection is None else NetworkServiceRequest(connection=connection)
            connection = await nsc.request(OURS, asked)
            connection = await nsc.request(OURS, NetworkServiceRequest(connection=connection))
            await nsc.close(OURS, connection)

    asyncio.run(main())
