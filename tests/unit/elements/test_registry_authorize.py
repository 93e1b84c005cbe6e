"""The path header and the ownership of names, with recorded calls and with our own."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nsmesh.core import virtual
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import Conflict, Invalid, MeshError, Unauthorized
from nsmesh.core.expiry import EXPIRES
from nsmesh.core.headers import ANSWERED
from nsmesh.core.peering import Dialled
from nsmesh.core.probes import Check, Count, Inject
from nsmesh.core.tokens import OUTGOING, token_headers
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.dial import Dial
from nsmesh.elements.registry_authorize import RegistryAuthorize, RegistryAuthorizeClient
from nsmesh.elements.registry_path import RegistryPath, RegistryPathClient
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.policy import REGISTRY_SERVER_POLICIES
from nsmesh.security.svid import SvidSource
from nsmesh.security.token import BadToken, TokenMinter, read_claims

TRACES = Path(__file__).parents[2] / "data" / "traces"
RECORDED = 1_795_432_150.0
"""Wall time at which the tokens of the recordings were fresh."""


class Role:
    """One identity at a fixed wall time: its tokens, and how it looks as a peer."""

    def __init__(self, ca, name, clock):
        svid = ca.issue(f"spiffe://{ca.trust_domain}/{name}")
        self.tokens = TokenMinter(SvidSource(svid, [ca.bundle()], clock=clock), clock=clock)
        self.peer = Peer(spiffe_id=svid.spiffe_id, certificate=svid.chain[0])
        self.id = svid.spiffe_id


class Still:
    """A clock that stands."""

    def __init__(self, time):
        self.time = time

    def now(self):
        return self.time

    def monotonic(self):
        return 0.0


class Remote:
    """A chain behind a network: it reads the caller's headers, and answers with headers."""

    def __init__(self, handler, role, caller):
        self.handler, self.peer, self.caller = handler, role.peer, caller

    def _call(self, call):
        return Call(peer=self.caller.peer, metadata=call.get(OUTGOING) or ())

    async def register(self, call, entry):
        inner = self._call(call)
        stored = await self.handler.register(inner, entry)
        call.get(ANSWERED).update(inner.reply)
        return stored

    async def unregister(self, call, entry):
        inner = self._call(call)
        await self.handler.unregister(inner, entry)
        call.get(ANSWERED).update(inner.reply)


@pytest.fixture
def mesh(tmp_path):
    class Mesh:
        clock = Still(1_700_000_000.0)
        ca = CertificateAuthority.open(tmp_path, "td", clock=clock)
        count = Count()

        def __init__(self):
            names = ("nse", "nse2", "nsmgr", "registry")
            self.nse, self.nse2, self.nsmgr, self.registry = (
                Role(self.ca, name, self.clock) for name in names
            )

        def server(self, *inner, masks=REGISTRY_SERVER_POLICIES, end=None, recorded=False):
            return chain(
                RegistryPath(self.registry.tokens),
                RegistryAuthorize(masks, recorded=recorded),
                self.count,
                *inner,
                end=end or Tail(),
                clock=self.clock,
            )

        def client(self, caller, target, role, *front):
            return chain(
                *front,
                Dial(target=Remote(target, role, caller)),
                RegistryAuthorizeClient(),
                RegistryPathClient(),
                ClientToken(caller.tokens),
                end=Dialled(),
                clock=self.clock,
            )

        def manager(self, registry):
            return self.client(
                self.nsmgr, registry, self.registry, RegistryPath(self.nsmgr.tokens), RegistryAuthorize()
            )

        def call(self, role, path="{}"):
            headers = token_headers(*role.tokens.mint(self.registry.peer))
            return Call(peer=role.peer, metadata=(*headers, *([("path", path)] if path is not None else [])))

    return Mesh()


def endpoint(name="nse-1"):
    return NetworkServiceEndpoint(name=name, network_service_names=["s"])


def recording(file):
    """Return header and calls (request, message, headers, trailers, answer) of a recording."""
    with (TRACES / f"{file}.jsonl").open() as lines:
        header, *events = (json.loads(line) for line in lines)
    calls = {}
    for event in events:
        if "call" in event:
            kind = event["ev"] + (event["dir"] if event["ev"] == "message" else "")
            calls.setdefault(event["call"], {})[kind] = event
    return header, list(calls.values())


@pytest.mark.parametrize("file", ["registry-path-header", "registry-owner", "registry-tokens"])
def test_recorded_calls_are_answered_as_the_go_registry_did(tmp_path, file):
    """Each recorded Register and Unregister gets the same status, path header and path ids."""
    header, calls = recording(file)
    leaves = {
        role: x509.load_pem_x509_certificate(one["leaf"].encode()).public_bytes(Encoding.DER)
        for role, one in header["identities"].items()
    }
    clock = Still(RECORDED)
    own = Role(CertificateAuthority.open(tmp_path, "test.nsm", clock=clock), "registry", clock)

    def filled(text):
        for name in sorted(header["tokens"], key=len, reverse=True):
            text = text.replace(name, header["tokens"][name]["raw"])
        return text

    async def main():
        server = chain(RegistryPath(own.tokens), RegistryAuthorize(), clock=clock)
        seen = set()
        for recorded in calls:
            request = recorded["request"]
            kind = NetworkServiceEndpoint if "Endpoint" in request["method"] else NetworkService
            entry = kind.FromString(base64.b64decode(recorded["message>"]["raw"]))
            metadata = tuple(
                (key, filled(value)) for key, value in request["metadata"] if not key.startswith(":")
            )
            who = header["identities"][request["from"]]["spiffe_id"]
            peer = Peer(spiffe_id=who, certificate=leaves[request["from"]])
            call = Call(peer=peer, metadata=metadata)
            try:
                if request["method"].endswith("/Register"):
                    answer = await server.register(call, entry)
                else:
                    answer = None
                    await server.unregister(call, entry)
                status = 0
            except MeshError as error:
                status = int(error.status)
            seen.add(status)
            if request_is_expired(metadata, clock):
                continue
            assert status == recorded["trailers"]["status"], request
            if status == 0:
                compare(recorded, answer, call.reply["path"], filled)
        assert seen >= {0, 7}

    virtual.run(main())


def request_is_expired(metadata, clock):
    """Whether the step is about an expired token: at this test's standing clock it is not."""
    for key, value in metadata:
        if key == "nsm-client-token":
            try:
                expires = read_claims(value).expires
            except BadToken:
                continue
            if expires is not None and expires < clock.time + 590:
                return True
    return False


def compare(recorded, answer, reply, filled):
    """Compare our path header and path ids with those of the recording."""
    expected = next(value for key, value in recorded["headers"]["metadata"] if key == "path")
    ours, theirs = json.loads(reply), json.loads(filled(expected))
    assert ours["Index"] == theirs["Index"]
    assert len(ours["PathSegments"]) == len(theirs["PathSegments"])
    assert ours["PathSegments"][0] == theirs["PathSegments"][0]
    if answer is not None:
        assert list(answer.path_ids) == recorded["message<"]["body"]["path_ids"]


def test_a_registration_goes_through_a_manager(mesh):
    """Endpoint, manager, registry: each adds itself, each side's policies pass, ids and path come back."""

    async def main():
        registry = mesh.server()
        manager = mesh.manager(registry)
        client = mesh.client(mesh.nse, manager, mesh.nsmgr)
        async with registry.running(), manager.running(), client.running():
            for _ in range(2):
                stored = await client.register(Call(peer=Peer(in_process=True)), endpoint())
                assert list(stored.path_ids) == [mesh.nse.id, mesh.nsmgr.id, mesh.registry.id]
                stored.ClearField("path_ids")
            await client.unregister(Call(peer=Peer(in_process=True)), stored)
        assert mesh.count.done == {"register": 2, "unregister": 1}

    virtual.run(main())


def test_a_manager_unregisters_what_expired_with_the_last_path(mesh):
    """A call of the manager's own carries the path of the registration, so the owner is still known."""

    async def main():
        registry = mesh.server()
        manager = mesh.manager(registry)
        client = mesh.client(mesh.nse, manager, mesh.nsmgr)
        async with registry.running(), manager.running(), client.running():
            stored = await client.register(Call(peer=Peer(in_process=True)), endpoint())
            below = mesh.client(mesh.nsmgr, registry, mesh.registry)
            with pytest.raises(Unauthorized, match=r"belongs to spiffe://td/nse, not to spiffe://td/nsmgr"):
                await below.unregister(Call(), endpoint())
            inner = manager.elements[2:]
            again = chain(*inner, end=Dialled(), clock=mesh.clock)
            await again.unregister(Call(), stored)
        assert mesh.count.done["unregister"] == 1

    virtual.run(main())


def test_an_answer_without_a_path_is_refused_and_taken_back(mesh):
    """A server that does not say who it is has registered nothing for us."""

    async def main():
        count = Count()
        silent = chain(count, clock=mesh.clock)
        client = mesh.client(mesh.nse, silent, mesh.registry)
        with pytest.raises(Unauthorized, match=r"no segment of its own"):
            await client.register(Call(peer=Peer(in_process=True)), endpoint())
        assert count.seen == {"register": 1, "unregister": 1}

    virtual.run(main())


def test_a_name_that_could_not_be_registered_stays_free(mesh):
    """A failure in the chain behind leaves no owner; a success does, for each kind on its own."""

    async def main():
        fail = Inject(lambda: Conflict("taken"), "register", times=1)
        server = mesh.server(fail)
        with pytest.raises(Conflict):
            await server.register(mesh.call(mesh.nse), endpoint("x"))
        await server.register(mesh.call(mesh.nse2), endpoint("x"))
        with pytest.raises(Unauthorized, match=r"x belongs to spiffe://td/nse2, not to spiffe://td/nse - "):
            await server.register(mesh.call(mesh.nse), endpoint("x"))
        await server.register(mesh.call(mesh.nse), NetworkService(name="x"))

    virtual.run(main())


def test_of_two_that_come_together_one_is_second(mesh):
    """A name is held while the rest of the chain decides: nobody slips in between."""

    class Slow(Tail):
        async def register(self, call, entry):
            await asyncio.sleep(1)
            return entry

    async def main():
        server = mesh.server(end=Slow())
        answers = await asyncio.gather(
            server.register(mesh.call(mesh.nse), endpoint()),
            server.register(mesh.call(mesh.nse2), endpoint()),
            return_exceptions=True,
        )
        assert [type(one) for one in answers] == [NetworkServiceEndpoint, Unauthorized]

    virtual.run(main())


def test_roles_of_this_process_own_what_they_register(mesh):
    """They prove nothing, and yet nobody else gets their names."""

    async def main():
        server = mesh.server()
        stored = await server.register(Call(peer=Peer(in_process=True)), endpoint("own"))
        assert list(stored.path_ids) == [mesh.registry.id]
        with pytest.raises(Unauthorized, match=r"own belongs to spiffe://td/registry"):
            await server.register(mesh.call(mesh.nse), endpoint("own"))
        await server.unregister(Call(peer=Peer(in_process=True)), stored)
        await server.register(mesh.call(mesh.nse), endpoint("own"))

    virtual.run(main())


def test_no_masks_no_checks(mesh):
    """An empty NSM_REGISTRY_SERVER_POLICIES disables the check, as upstream."""

    async def main():
        server = mesh.server(masks=())
        await server.register(Call(peer=mesh.nse.peer), endpoint())
        await server.register(Call(peer=mesh.nse2.peer), endpoint())

    virtual.run(main())


def test_an_index_behind_the_end_is_an_error(mesh):
    """A bent path is the caller's mistake and is said so."""

    async def main():
        with pytest.raises(Invalid, match=r"index 3 points behind"):
            await mesh.server().register(
                mesh.call(mesh.nse, '{"Index":3,"PathSegments":[{"token":"x"}]}'), endpoint()
            )

    virtual.run(main())


def test_the_credentials_bound_the_registration(mesh):
    """What expires first, of the caller's token and ours, is told to the elements further in."""
    seen = []

    async def main():
        check = Check("register", lambda call, _: seen.append(call.get(EXPIRES)))
        server = mesh.server(check)
        token, _ = mesh.nse.tokens.mint(mesh.registry.peer)
        headers = (*token_headers(token, mesh.clock.time + 30), ("path", "{}"))
        await server.register(Call(peer=mesh.nse.peer, metadata=headers), endpoint())
        await server.register(mesh.call(mesh.nse), endpoint())

    virtual.run(main())
    assert seen == [mesh.clock.time + 30, mesh.clock.time + 600]


@pytest.mark.parametrize("kind", [NetworkServiceEndpoint, NetworkService])
def test_replicas_know_whose_a_name_is(mesh, kind):
    """Two over one memory, and one that starts again: a name is its owner's until it is unregistered."""

    async def main():
        end = Registry(MemoryStore(SERVICE), MemoryStore(ENDPOINT))
        one, two = (mesh.server(end=end, recorded=True) for _ in range(2))
        async with one.running(), two.running():
            await one.register(mesh.call(mesh.nse), kind(name="a"))
            for verb in (
                two.register,
                two.unregister,
                one.register,
                mesh.server(end=end, recorded=True).register,
            ):
                with pytest.raises(
                    Unauthorized, match="a belongs to spiffe://td/nse, not to spiffe://td/nse2"
                ):
                    await verb(mesh.call(mesh.nse2), kind(name="a"))
            await two.register(mesh.call(mesh.nse), kind(name="a"))
            await two.unregister(mesh.call(mesh.nse), kind(name="a"))
            await one.register(mesh.call(mesh.nse2), kind(name="a"))
            with pytest.raises(Unauthorized, match="belongs to spiffe://td/nse2"):
                await two.register(mesh.call(mesh.nse), kind(name="a"))

    virtual.run(main())


def test_what_no_registry_wrote_belongs_to_nobody(mesh):
    """A service that somebody applied has no owner; one that is gone frees its name, whoever removed it."""

    async def main():
        services = MemoryStore(SERVICE)
        server = mesh.server(end=Registry(services, MemoryStore(ENDPOINT)), recorded=True)
        async with server.running():
            await services.put(NetworkService(name="applied"))
            await server.register(mesh.call(mesh.nse), NetworkService(name="applied"))
            with pytest.raises(Unauthorized):
                await server.register(mesh.call(mesh.nse2), NetworkService(name="applied"))
            await services.remove("applied")
            await server.register(mesh.call(mesh.nse2), NetworkService(name="applied"))

    virtual.run(main())
