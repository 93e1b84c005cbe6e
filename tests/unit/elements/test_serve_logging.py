"""What is logged while a method is served says who asked."""

import asyncio
import io
import json
import os

import pytest
import structlog

from nsmesh import rpc
from nsmesh.core import logging
from nsmesh.core.element import Element, chain
from nsmesh.core.tokens import token_headers
from nsmesh.elements import serve
from nsmesh.elements.update_path import UpdatePath
from nsmesh.model import methods
from nsmesh.model.messages import Connection, NetworkServiceEndpoint, NetworkServiceRequest
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import SvidSource

log = structlog.get_logger()


class Talks(Element):
    """Ends the chain, and says which verb it heard."""

    async def request(self, call, request, next):
        log.info("request")
        return request.connection

    async def close(self, call, connection, next):
        log.info("close")

    async def register(self, call, entry, next):
        log.info("register")
        return entry


@pytest.fixture
def lines():
    out = io.StringIO()
    logging.configure(role="test", stream=out)
    yield lambda: {line["event"]: line for line in map(json.loads, out.getvalue().splitlines())}
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize("secure", [True, False])
def test_the_peer_is_on_every_line(tmp_path, lines, secure):
    """SPIFFE ID or user of the caller, and our id of the connection, of every verb; nothing stays behind."""
    ca = CertificateAuthority.open(tmp_path / "ca", "td")

    def identity(name):
        return SvidSource(ca.issue(f"spiffe://td/{name}"), [ca.bundle()]) if secure else None

    async def main():
        talks = chain(UpdatePath("server", lambda: "ours"), Talks(), name="talks")
        served = {**serve.connections(talks), **serve.registry(talks)}
        url = f"unix://{tmp_path}/s.sock"
        async with talks.running(), rpc.serve(url, served, identity=identity("server")):
            client = await rpc.connect(url, identity=identity("nsc"))
            made = Connection(id="theirs")
            made.path.path_segments.add(name="nsc", id="theirs")
            asked = NetworkServiceRequest(connection=made)
            await client.unary(methods.REQUEST, asked.SerializeToString(), metadata=token_headers("x", 1))
            await client.unary(methods.CLOSE, made.SerializeToString())
            entry = NetworkServiceEndpoint(name="nse")
            await client.unary(methods.ENDPOINT_REGISTER, entry.SerializeToString())
            await client.aclose(0)
            log.info("afterwards")

    asyncio.run(main())
    peer = "spiffe://td/nsc" if secure else f"user {os.getuid()}"
    told = {event: (line.get("peer"), line.get("connection")) for event, line in lines().items()}
    assert {event: told[event] for event in ("request", "close", "register", "afterwards")} == {
        "request": (peer, "ours"),
        "close": (peer, "ours"),
        "register": (peer, None),
        "afterwards": (None, None),
    }
    assert lines()["request"]["element"] == "test_serve_logging"
