"""Servers that demand no certificate, and peers that are shown the door."""

import asyncio
import ssl

import pytest
from rpc_helpers import Authority, pair

from nsmesh.core.errors import MeshError, Unauthorized

ECHO = "/test.Echo/Echo"


@pytest.fixture(scope="module")
def authority():
    return Authority()


class Optional:
    """An identity that takes callers without a certificate, or is one."""

    def __init__(self, inner, *, shows):
        self._inner = inner
        self._shows = shows
        self.spiffe_id = inner.spiffe_id
        self.on_rotation = inner.on_rotation
        self.verify = inner.verify

    def server_context(self):
        context = self._inner.server_context()
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def client_context(self):
        if self._shows:
            return self._inner.client_context()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        return context


@pytest.mark.parametrize("shows", [True, False])
def test_who_shows_nothing_has_no_name(engine, authority, tmp_path, shows):
    """Where certificates are optional, the server knows who showed one and who did not."""

    async def main():
        server = Optional(authority.identity("server", tmp_path), shows=True)
        client = Optional(authority.identity("client", tmp_path), shows=shows)
        async with pair(engine, "tcp://127.0.0.1:0", identity=server, client_identity=client) as found:
            service, _, caller = found
            await caller.unary(ECHO, b"x")
            assert caller.peer.spiffe_id == server.spiffe_id
            peer = service.calls[0].peer
            assert peer.spiffe_id == (client.spiffe_id if shows else "")
            assert bool(peer.certificate) is shows

    asyncio.run(main())


def test_where_they_are_not_optional_nothing_changes(engine, authority, tmp_path):
    """A server that demands certificates refuses who shows none."""

    async def main():
        client = Optional(authority.identity("client", tmp_path), shows=False)
        options = {"identity": authority.identity("server", tmp_path), "client_identity": client}
        with pytest.raises(MeshError, match="certificate"):
            async with pair(engine, "tcp://127.0.0.1:0", **options) as (_, _, caller):
                await caller.unary(ECHO, b"x")

    asyncio.run(main())


def test_peers_are_ended(engine, authority, tmp_path):
    """``end_peers`` ends the connections and calls of some peers, and of no others."""

    async def main():
        identity = authority.identity("server", tmp_path)
        options = {"identity": identity, "client_identity": authority.identity("client", tmp_path)}
        async with pair(engine, "tcp://127.0.0.1:0", **options) as (_, server, caller):
            await caller.unary(ECHO, b"x")
            server.end_peers(lambda peer: peer.spiffe_id.endswith("/other"), Unauthorized("out"))
            await caller.unary(ECHO, b"x")
            server.end_peers(lambda peer: peer.spiffe_id.endswith("/client"), Unauthorized("out"))
            with pytest.raises(MeshError):
                await caller.unary(ECHO, b"x")
            assert server.connections == 0

    asyncio.run(main())
