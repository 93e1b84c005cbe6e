"""What a joining host says is of no use to whoever reads it, even inside TLS."""

import asyncio
import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from test_joining import DOMAIN, Stage, refuses

from nsmesh import rpc
from nsmesh.api import join_pb2
from nsmesh.core.errors import Invalid, Unauthorized
from nsmesh.security.signing_request import make_request
from nsmesh.standalone.joining import asking, methods
from nsmesh.standalone.joining.pinned import Pinned


@pytest.fixture
def overheard(monkeypatch):
    """Collect what a joining host says, before it is encrypted; nothing of it reaches the first host."""
    said = []

    async def ask(client, method, message):
        said.append(message)
        raise ConnectionError("the listener keeps it")

    monkeypatch.setattr(asking, "_asked", ask)
    return said


def test_what_is_said_holds_no_secret_and_lets_no_other_key_in(tmp_path, overheard):
    """Another's key in the claim is refused; the claim as it is gives what its own key can use, once."""

    async def main():
        stage = Stage(tmp_path)
        async with stage.up():
            token = stage.host.token(600)
            with pytest.raises(ConnectionError):
                await stage.join(token=token)
            (signed,) = overheard
            sent = signed.SerializeToString()
            for form in (token.secret, token.secret.hex().encode(), base64.b64encode(token.secret)[:20]):
                assert form not in sent
            assert str(token).split(".")[2].encode() not in sent

            client = await rpc.connect(stage.address.mesh, identity=Pinned([token.pin], "first", stage.time))
            claim = join_pb2.Claim.FromString(signed.claim)
            claim.request = make_request(
                ec.generate_private_key(ec.SECP256R1()), f"spiffe://{DOMAIN}/node/second"
            )
            stolen = join_pb2.Signed(claim=claim.SerializeToString(), proof=signed.proof)
            with refuses(Unauthorized, "is not the one that was given"):
                await client.unary(methods.JOIN, stolen.SerializeToString())
            assert stage.said == []

            reply = await client.unary(methods.JOIN, sent)
            thief = ec.generate_private_key(ec.SECP256R1())
            with refuses(Invalid, "key"):
                asking.taken(join_pb2.Identity.FromString(reply.message), thief, DOMAIN, stage.time)
            with refuses(Unauthorized, "has been used already, by second"):
                await client.unary(methods.JOIN, sent)
            await client.aclose(0)

    asyncio.run(main())
