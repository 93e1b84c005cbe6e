"""Tokens of every wrong make, from insiders with a good SVID: refused by managers and registries alike."""

import asyncio
import time

import pytest
from attacks import Raw, claims, confused, connection, headers, refusal, signed, spiffe, unsigned, wanted
from cryptography.hazmat.primitives.asymmetric import ec

from nsmesh.core.errors import Exhausted, Internal, MeshError, Unauthorized
from nsmesh.model import methods
from nsmesh.model.messages import NetworkService
from nsmesh.rpc import engine as http2
from nsmesh.rpc import framing


def by(**changes):
    return lambda who: signed(who.key, claims(who.name, **changes))


TOKENS = {
    "aud is a string": (by(aud=spiffe("nsmgr")), "tokens_chained"),
    "aud is somebody else": (by(aud=[spiffe("registry")]), "tokens_chained.*{me}"),
    "no aud": (by(aud=None), "tokens_chained"),
    "signed by another key": (
        lambda who: signed(ec.generate_private_key(ec.SECP256R1()), claims(who.name)),
        "prev_token_signed refused hop 0.*says {me}, but the caller {me} did not sign",
    ),
    "alg none": (lambda who: unsigned(claims(who.name)), "tokens_valid.*'none', not ES256"),
    "HS256 by the public key": (
        lambda who: confused(claims(who.name), who.key.public_key()),
        "tokens_valid.*'HS256', not ES256",
    ),
    "expired": (by(exp=int(time.time()) - 30), "tokens_expired.*{me} to {nsmgr} expired"),
    "no exp": (by(exp=None), "tokens_expired.*{me} to {nsmgr} has no exp"),
    "in another's name": (
        by(sub=spiffe("nsc")),
        "prev_token_subject.*/nsc, but the caller is {me}",
    ),
    "in nobody's name": (by(sub=None), "prev_token_subject"),
    "no token at all": (lambda who: "", "tokens_valid.*the token is empty; the caller is {me}"),
    "no token but words": (lambda who: "let me in", "tokens_valid.*parts, not 3"),
    "longer than any": (lambda who: who.token() + "A" * 20_000, "tokens_valid.*more than 16384"),
}


@pytest.mark.parametrize("case", TOKENS)
def test_a_wrong_token_is_refused(mesh, mallory, case):
    """The manager refuses a Request, manager and registry a Register; the log says rule, hop, and who."""
    make, pattern = TOKENS[case]
    me = spiffe(mallory.name)
    pattern = pattern.replace("{me}", me).replace("{nsmgr}", spiffe("nsmgr"))

    async def main():
        sent = headers(make(mallory))
        await refused(mesh, mallory.request(mesh.url("nsmgr"), connection(), sent), pattern, me)
        if "aud" in case or case == "expired":
            return  # they name the manager
        service = NetworkService(name="mallorys").SerializeToString()
        for role in ("nsmgr", "registry"):
            call = mallory.call(
                mesh.url(role), methods.SERVICE_REGISTER, service, (*sent, ("path", "{}")), to=role
            )
            rule = pattern.partition(".*")[0].partition(" ")[0]
            await refused(mesh, call, "tokens_chained|" + rule, me)

    asyncio.run(main())


async def refused(mesh, call, pattern, me):
    mesh.mark()
    error = await refusal(call)
    assert isinstance(error, Unauthorized)
    assert "no sufficient privileges" in str(error)
    line = mesh.heard(pattern)
    assert line["peer"] == me
    assert line["method"].startswith("/")
    assert line["at"].startswith("spiffe://")


def test_two_audiences_have_no_answer(mesh, mallory):
    """A token to two audiences, one of them right, is an error and no permission."""

    async def main():
        token = mallory.token(aud=[spiffe("nsmgr"), spiffe("registry")])
        error = await refusal(mallory.request(mesh.url("nsmgr"), connection(), headers(token)))
        assert isinstance(error, Internal)
        assert mesh.heard("addressed to")["peer"] == spiffe(mallory.name)

    asyncio.run(main())


def test_a_token_of_a_megabyte_is_refused(mesh, mallory):
    """In a path it is refused by its length; as headers it ends its call, or its connection."""
    long = "A" * (1 << 20)
    many = [("nsm-client-token", "A" * 10_000)] * 10

    async def main():
        made = connection()
        made.path.path_segments[0].token = long
        made.path.path_segments[0].expires.FromSeconds(int(time.time()) + 600)
        error = await refusal(mallory.request(mesh.url("nsmgr"), made, ()))
        assert "bytes is larger than" in str(error)
        made.path.path_segments[0].token = "A" * 200_000
        error = await refusal(mallory.request(mesh.url("nsmgr"), made, ()))
        assert "200000 characters" in str(error)
        assert len(str(error)) < 1000
        error = await refusal(mallory.request(mesh.url("nsmgr"), connection(), (*headers(""), *many)))
        assert isinstance(error, Exhausted)
        mesh.heard("metadata of .* bytes", peer=spiffe(mallory.name))
        async with Raw(mesh.url("nsmgr"), mallory.identity.client_context()) as raw:
            raw.engine = Wide()
            stream = raw.open(methods.REQUEST, [(b"nsm-client-token", long.encode())])
            raw.engine.data(stream, framing.envelope(wanted(connection())), ended=True)
            raw.flush()
            while not raw.ended:
                await raw.read()

    asyncio.run(main())


class Wide:
    """A client's engine without manners: it sends headers of any size."""

    def __init__(self):
        import hpack

        self.encoder = hpack.Encoder()
        self.out = b""

    def request(self, fields):
        block = self.encoder.encode(fields, huffman=False)
        pieces = [block[place : place + 16384] for place in range(0, len(block), 16384)]
        for number, piece in enumerate(pieces):
            kind, flags = (1 if number == 0 else 9), (4 if number == len(pieces) - 1 else 0)
            self.out += len(piece).to_bytes(3, "big") + bytes((kind, flags)) + (1).to_bytes(4, "big") + piece
        return 1

    def data(self, stream, data, *, ended):
        pass

    def take(self, amount):
        out, self.out = self.out, b""
        return out

    def feed(self, data):
        return [http2.Ping()]


def test_a_token_twice_is_no_token(mesh, mallory):
    """Two token headers prove nothing, though one of them be good."""

    async def main():
        sent = headers(mallory.token())
        with pytest.raises(MeshError, match="no sufficient privileges"):
            await mallory.request(mesh.url("nsmgr"), connection(), (*sent, sent[0]))

    asyncio.run(main())
