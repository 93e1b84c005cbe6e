"""Joining and staying a node, over real TLS on the loopback, with clocks that can be set."""

import asyncio
import contextlib
import socket
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import nsmesh
from nsmesh import rpc
from nsmesh.api import join_pb2
from nsmesh.core.errors import Conflict, Invalid, MeshError, Refused, Unauthorized
from nsmesh.core.scope import Scope
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.join_token import pin_of
from nsmesh.security.signing_request import make_request
from nsmesh.security.svid import SvidSource
from nsmesh.standalone.joining import asking, methods, record
from nsmesh.standalone.joining.first import served_mesh_port
from nsmesh.standalone.joining.member import Member
from nsmesh.standalone.joining.names import first_id
from nsmesh.standalone.joining.pinned import Pinned
from nsmesh.standalone.joining.place import Address, Place, node_name, own_address, parse_address
from nsmesh.standalone.joining.roster import SILENT, TTL

MESH, DOMAIN = "m", "m.nsmesh"


class Time:
    """A wall clock that can be set; the loop's time is the loop's."""

    def __init__(self, ahead=0.0):
        self.ahead = ahead

    def now(self):
        return time.time() + self.ahead

    def monotonic(self):
        return asyncio.get_running_loop().time()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(probe.getsockname()[1], 65000)


class Stage:
    """The first host of a mesh, and what it was told."""

    def __init__(self, folder):
        self.folder = folder
        self.time = Time()
        self.address = Address("127.0.0.1", free_port())
        self.said = []
        self.gone = []

    @contextlib.asynccontextmanager
    async def up(self):
        ca = CertificateAuthority.open(self.folder / "ca", DOMAIN, clock=self.time)
        place = Place("first", self.address)
        served = served_mesh_port(place, MESH, ca, self.folder, self.time, tell=self.said.append)
        async with served as self.host:
            self.host.port.out.append(lambda node: self.gone.append(node.name))
            self.ca = ca
            yield self

    async def join(self, name="second", *, token=None, at=None, mesh=MESH):
        token = token or self.host.token(600)
        place = Place(name, Address("127.0.0.2", self.address.port))
        return await asking.join(mesh, f"{mesh}.nsmesh", self.address, place, token, at or self.time)

    @contextlib.asynccontextmanager
    async def member(self, found):
        """Give a node that has joined, without its signs of life."""
        async with Scope("member", self.time) as scope:
            member = Member(found, self.folder / "membership.json", DOMAIN, scope)
            try:
                yield member
            finally:
                await member.aclose()


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path)


def refuses(kind, *pieces):
    """Expect an error of a kind, with pieces of sentence and remedy in order."""
    return pytest.raises(kind, match="(?s)" + ".*".join(pieces))


def test_a_host_joins_once_with_a_token(stage):
    """It gets an identity for its own key and the bundle; the token is of no use then, nor is its file."""

    async def main():
        async with stage.up():
            token = stage.host.token(600)
            found = await stage.join(token=token)
            svid, bundle = found.keys(DOMAIN)
            assert svid.spiffe_id == "spiffe://m.nsmesh/node/second"
            assert bundle == stage.ca.bundle()
            assert found.registry_url == f"tcp://127.0.0.1:{stage.address.port + 2}"
            assert stage.said == ["node second joined, at 127.0.0.2"]
            saved = (stage.folder / "join-tokens.json").read_text()
            assert token.secret.hex() not in saved
            assert str(token).split(".")[2] not in saved
            with refuses(Unauthorized, "has been used already, by second"):
                await stage.join("third", token=token)
            with refuses(Conflict, "there is a node second", "--name"):
                await stage.join()
        async with stage.up():  # what was used stays used when the first host begins anew
            with refuses(Unauthorized, "has been used already, by second"):
                await stage.join("third", token=token)

    asyncio.run(main())


def test_what_is_refused_leaves_the_token_good(stage, monkeypatch):
    """Clocks apart, another version, a name that is taken: after the remedy the same token lets in."""

    async def main():
        async with stage.up():
            token = stage.host.token(600)
            with refuses(Refused, "the clock of second is 45 s ahead of that of first", "NTP"):
                await stage.join(token=token, at=Time(45))
            with refuses(Refused, "the clock of second is 45 s behind that of first", "NTP"):
                await stage.join(token=token, at=Time(-45))
            with refuses(Refused, "the clocks of the two hosts differ: the certificate of", "NTP"):
                await stage.join(token=token, at=Time(-86400))
            with refuses(Refused, "the clocks of the two hosts differ", "here it is"):
                await stage.join(token=token, at=Time(86400))
            with refuses(Conflict, "the name of the first host's own node"):
                await stage.join("first", token=token)
            with refuses(Conflict, "is called m, and n was to be joined", "--mesh m"):
                await stage.join(token=token, mesh="n")
            own = nsmesh.__version__
            monkeypatch.setattr(asking, "nsmesh", type("Old", (), {"__version__": "9.9.9"}))
            with refuses(Refused, f"first runs nsmesh {own}, and second 9.9.9", "the same version"):
                await stage.join(token=token)
            monkeypatch.undo()
            await stage.join(token=token)

    asyncio.run(main())


def test_tokens_end(stage):
    """A token is of no use when its time is over, and that is said for a day; lives have limits."""

    async def main():
        async with stage.up():
            token = stage.host.token(60)
            stage.time.ahead = 90
            with refuses(Unauthorized, r"has expired, 3\ds ago", "nsm token create"):
                await stage.join(token=token)
            for lifetime in (0, -1, 86401, float("nan")):
                with refuses(Invalid, "cannot be good for"):
                    stage.host.token(lifetime)

    asyncio.run(main())


def test_nothing_is_said_to_a_stranger(stage, tmp_path):
    """A server with another CA, or with an SVID of the mesh that is not the first host's, hears no claim."""

    async def main():
        heard = []

        async def hear(call, body):
            heard.append(body)
            return b""

        async def offered(svid, bundle, token):
            source = SvidSource(svid, [bundle])

            class Stranger:
                spiffe_id = svid.spiffe_id

                def server_context(self):
                    context = source.server_context()
                    context.verify_mode = 0
                    return context

                def verify(self, chain):
                    return ""

                def on_rotation(self, listener):
                    return lambda: None

            address = Address("127.0.0.1", free_port())
            there = {methods.JOIN: rpc.Unary(hear)}
            async with rpc.serve(address.mesh, there, identity=Stranger()):
                with pytest.raises(MeshError) as failed:
                    await asking.join(MESH, DOMAIN, address, Place("x", address), token, stage.time)
            return failed.value

        async with stage.up():
            token = stage.host.token(600)
            other = CertificateAuthority.open(tmp_path / "other", DOMAIN)
            error = await offered(other.issue(first_id(DOMAIN)), other.bundle(), token)
            assert "is of another mesh than the token" in error.what
            error = await offered(stage.ca.issue(f"spiffe://{DOMAIN}/ns/insider"), stage.ca.bundle(), token)
            assert "is of another mesh than the token" in error.what
        assert heard == []

    asyncio.run(main())


def test_the_first_host_signs_for_what_lives_on_a_node(stage):
    """IDs below the node's own, and no others; nobody without a node's identity is heard."""

    async def main():
        async with stage.up():
            found = await stage.join()
            async with stage.member(found) as member:
                svid = await member.svid(f"spiffe://{DOMAIN}/node/second/ns/app", 60)
                assert svid.spiffe_id == "spiffe://m.nsmesh/node/second/ns/app"
                assert svid.not_after - stage.time.now() == pytest.approx(TTL, abs=5)
                assert (await member.svid(f"spiffe://{DOMAIN}/node/second", 60)) is member.source.svid
                for other in ("nsm/mesh", "node/third/ns/app", "ns/app", "node/second2/x"):
                    with refuses(Unauthorized, "the node second cannot vouch for"):
                        await member.svid(f"spiffe://{DOMAIN}/{other}", 60)
            inside = SvidSource(stage.ca.issue(f"spiffe://{DOMAIN}/node/second/ns/app"), [stage.ca.bundle()])
            nobody = Pinned([pin_of(stage.ca.active.certificate)], "first", stage.time)
            for identity, says in ((inside, "is no node that joined"), (nobody, "nodes alone")):
                client = await rpc.connect(stage.address.mesh, identity=identity)
                for method in (methods.BEAT, methods.SIGN, methods.LEAVE):
                    with refuses(Unauthorized, says):
                        await client.unary(method, b"")
                await client.aclose(0)

    asyncio.run(main())


def test_an_identity_is_renewed_without_a_token(stage):
    """Also when it has ended long ago, by the key that the node has; a key of before is no good for ever."""

    async def main():
        async with stage.up():
            found = await stage.join()
            stage.time.ahead = 10 * TTL
            async with stage.member(found) as member:
                old = member.source.svid
                await member.ready()
                new = member.source.svid
                assert new.not_after > stage.time.now() > old.not_after
                assert record.load(stage.folder / "membership.json").svid == new.pem().decode()
                await member._renew()
                await member._renew()
                stale = SvidSource(old, [member.bundle()], clock=stage.time)
                with refuses(Refused, "second is no node of this mesh any more"):
                    await asking.renewed(found, DOMAIN, stale, stage.time)

    asyncio.run(main())


def test_a_removed_node_is_out(stage):
    """No identity, no renewal, no word; what was issued to it is refused, what is issued later is not."""

    async def main():
        async with stage.up():
            found = await stage.join()
            async with stage.member(found) as member:
                await member._beat()
                assert [node.name for node in member.nodes()] == ["first", "second"]
                old = member.source.svid.leaf
                assert stage.host.refuses(old) == ""
                stage.host.remove("second")
                assert stage.gone == ["second"]
                assert "the node second was removed" in stage.host.refuses(old)
                seen = []
                member.alarm = seen.append
                member.removed = lambda: seen.append("removed")
                await asyncio.wait_for(member.run(), 5)
                assert isinstance(seen[0], Refused)
                assert seen[1] == "removed"
                with refuses(Refused, "no node of this mesh any more"):
                    await asking.renewed(found, DOMAIN, member.source, stage.time)
                with refuses(Refused, "taken out of the mesh m", "nsm join"):
                    record.check_up(stage.folder / "membership.json")
            again = await stage.join()
            assert stage.host.refuses(again.keys(DOMAIN)[0].leaf) == ""
            assert stage.host.refuses(old) != ""
            async with stage.member(again) as member:
                await member._beat()
                assert member.refuses(old) != ""

    asyncio.run(main())


def test_leaving(stage):
    """A node that leaves is forgotten, and its name is free; both hosts may begin anew meanwhile."""

    async def main():
        async with stage.up():
            found = await stage.join()
        async with stage.up():
            assert [node.name for node in stage.host.nodes()] == ["first", "second"]
            await asking.leave(found, DOMAIN, stage.time)
            assert [node.name for node in stage.host.nodes()] == ["first"]
            await stage.join()

    asyncio.run(main())


def test_who_lives_is_known(stage):
    """A node that has said nothing for a while counts as silent, and is told when it is there again."""

    async def main():
        async with stage.up():
            found = await stage.join()
            async with stage.member(found) as member:
                await member._beat()
                stage.time.ahead += SILENT + 1
                await member._beat()
                assert stage.said == ["node second joined, at 127.0.0.2", *["node second is there"] * 2]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "port"),
    [("10.0.0.1", 5000), ("10.0.0.1:6000", 6000), ("fd00::1", 5000), ("[fd00::1]:6000", 6000)],
)
def test_addresses(text, port):
    """Both families, with and without a port; what is printed reads the same again."""
    found = parse_address(text)
    assert found.port == port
    assert parse_address(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", "host", "10.0.0.1:", "10.0.0.1:x", "0.0.0.0", "::", "10.0.0.1:1", "224.0.0.1"]
)
def test_what_is_no_address(text):
    """It is refused, with what to write."""
    with pytest.raises(Invalid):
        parse_address(text)


def test_names_and_own_addresses():
    """The host name where nothing is said; the address that packets would have."""
    assert node_name("")
    with refuses(Invalid, "contains", "--name a-b"):
        node_name("A B")
    assert own_address(Address("127.0.0.1", 5000)) == "127.0.0.1"


def test_bent_claims_are_refused(stage):
    """What is no message, and a request for another's identity: one sentence each, and no token is used."""

    async def main():
        async with stage.up():
            token = stage.host.token(600)
            nobody = Pinned([token.pin], "first", stage.time)
            client = await rpc.connect(stage.address.mesh, identity=nobody)

            async def ask(claim):
                signed = join_pb2.Signed(claim=claim, proof=token.prove(claim))
                return await client.unary(methods.JOIN, signed.SerializeToString())

            with refuses(Invalid, "no nsmesh.join.Claim"):
                await ask(b"\xff\xff")
            key = ec.generate_private_key(ec.SECP256R1())
            claim = join_pb2.Claim(
                token_id=token.id,
                name="second",
                mesh=MESH,
                version=nsmesh.__version__,
                time=stage.time.now(),
                request=make_request(key, first_id(DOMAIN)),
            )
            with refuses(Unauthorized, "second cannot have the identity spiffe://m.nsmesh/nsm/mesh"):
                await ask(claim.SerializeToString())
            claim.request = b"x" * 20
            with refuses(Invalid, "the signing request cannot be read"):
                await ask(claim.SerializeToString())
            claim.time = float("nan")
            with refuses(Refused, "the clock"):
                await ask(claim.SerializeToString())
            await client.aclose(0)
            await stage.join(token=token)

    asyncio.run(main())
