"""An agent and a CA that signs with an authority which the agent has not heard of."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh import rpc
from nsmesh.api import join_pb2
from nsmesh.attestation.agent import Signer
from nsmesh.attestation.names import SIGN, pod_id
from nsmesh.attestation.settings import AgentSettings
from nsmesh.core.clock import SystemClock
from nsmesh.core.errors import Unauthorized, Unavailable
from nsmesh.security.ca import TTL, CertificateAuthority
from nsmesh.security.signing_request import read_request
from nsmesh.standalone.joining.pinned import PortIdentity

DOMAIN = "cluster.nsmesh"
WEB = pod_id(DOMAIN, "shop", "web")


def scenario(folder, work):
    """Do ``work`` with a CA that is served, a signer that knows it as it is, and what the CA publishes."""

    async def main():
        ca = CertificateAuthority.open(folder / "ca", DOMAIN)
        calls = []

        async def sign(call, body):
            identity, key = read_request(join_pb2.SignRequest.FromString(body).request)
            calls.append(str(identity))
            if not str(identity).endswith("web"):
                raise Unauthorized("there is no such pod")
            answer = join_pb2.Identity(svid=ca.sign(key, str(identity), TTL), bundle=ca.bundle().der())
            return answer.SerializeToString()

        (folder / "token").write_text("secret")
        identity = PortIdentity(ca, SystemClock())
        async with rpc.serve("tcp://127.0.0.1:0", {SIGN: rpc.Unary(sign)}, identity=identity) as server:
            settings = AgentSettings(
                trust_domain=DOMAIN, authority_url=server.url, token_file=str(folder / "token")
            )
            published = [ca.bundle()]

            async def read():
                if not published:
                    raise Unavailable("the API server is away")
                return published[-1]

            signer = Signer(settings, ca.bundle(), read, SystemClock())
            await work(ca, signer, published, calls)

    asyncio.run(main())


def test_it_looks_what_was_published(tmp_path):
    """The next authority signs at once, as after a step of the clock: the agent takes it, and tells pods."""

    async def work(ca, signer, published, calls):
        told = []
        signer.changed = lambda: told.append(signer.bundle())
        assert (await signer.svid(WEB, TTL)).spiffe_id == WEB
        ca.prepare()
        ca.activate()
        published.append(ca.bundle())
        assert (await signer.svid(WEB, TTL)).spiffe_id == WEB
        assert told == [ca.bundle()]
        assert len(calls) == 2  # nothing was said to one that it did not know

    scenario(tmp_path, work)


@pytest.mark.parametrize("away", [False, True])
def test_one_that_nobody_published_is_a_stranger(tmp_path, away):
    """It gets no token, and the reason is told; so it is where nobody can say what was published."""

    async def work(ca, signer, published, calls):
        ca.prepare()
        ca.activate()
        if away:
            published.clear()
        with pytest.raises(Unauthorized, match="does not lead to the bundle"):
            await signer.svid(WEB, TTL)
        assert calls == []

    scenario(tmp_path, work)


def test_a_refusal_stays_one(tmp_path):
    """A CA that is known and says no is asked once."""

    async def work(ca, signer, published, calls):
        other = pod_id(DOMAIN, "shop", "nobody")
        with pytest.raises(Unauthorized, match="no such pod"):
            await signer.svid(other, TTL)
        assert calls == [other]

    scenario(tmp_path, work)
