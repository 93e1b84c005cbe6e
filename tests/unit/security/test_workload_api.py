"""The Workload API: who gets which SVID, and when a new one comes."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.api import workload_pb2
from nsmesh.core import virtual
from nsmesh.core.call import Peer
from nsmesh.core.errors import Invalid, MeshError, Unauthorized
from nsmesh.core.process import start_ticks
from nsmesh.security import jws
from nsmesh.security.ca import LIFETIME, CertificateAuthority
from nsmesh.security.entries import DEFAULT_TEMPLATE, Entries, Entry, Template, attest
from nsmesh.security.jwt_svid import mint_jwt_svid
from nsmesh.security.verify import Bundle, verify_chain
from nsmesh.security.workload_api import WorkloadApi
from nsmesh.security.workload_names import SECURITY_HEADER
from nsmesh.security.workload_response import read_x509_response, workload_socket

HEADER = ((SECURITY_HEADER, "true"),)
ME = Peer(uid=1000, gid=100, pid=os.getpid())
CLOCK = virtual.VirtualClock()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ca"


def api(folder, *entries, template=None):
    """Return a Workload API on the running virtual loop."""
    ca = CertificateAuthority.open(folder, "my.nsm", clock=CLOCK)
    found = Entries(*entries, template=Template(template, "my.nsm") if template else None)
    return WorkloadApi(ca, found, clock=CLOCK)


def entry(name="nsc", *selectors, **rest):
    return Entry(frozenset(selectors or ("unix:uid:1000",)), f"spiffe://my.nsm/{name}", **rest)


async def first(stream):
    try:
        return await anext(stream)
    finally:
        await stream.aclose()


def test_a_caller_gets_its_svid_at_once(folder):
    """A complete message: ID, chain, key and bundle, which verify; the first SVID is the most specific."""

    async def main():
        server = api(folder, entry("any"), entry("mine", "unix:uid:1000", f"nsm:pid:{os.getpid()}"))
        message = await first(server.fetch_x509_svid(HEADER, ME, b""))
        response = workload_pb2.X509SVIDResponse.FromString(message)
        assert [one.spiffe_id for one in response.svids] == ["spiffe://my.nsm/mine", "spiffe://my.nsm/any"]
        svid, bundles = read_x509_response(message)
        assert svid.spiffe_id == "spiffe://my.nsm/mine"
        verify_chain(list(svid.chain), {one.trust_domain: one for one in bundles}, CLOCK.now())

    virtual.run(main())


@pytest.mark.parametrize(
    "metadata", [(), ((SECURITY_HEADER, "false"),), ((SECURITY_HEADER, "true"), (SECURITY_HEADER, "true"))]
)
def test_the_security_header_is_demanded_of_every_method(folder, metadata):
    """Without it every method answers InvalidArgument, whoever calls."""

    async def main():
        server = api(folder, entry())
        for stream in (server.fetch_x509_svid, server.fetch_x509_bundles, server.fetch_jwt_bundles):
            with pytest.raises(Invalid, match=r"security header missing from request"):
                await first(stream(metadata, ME, b""))
        for unary in (server.fetch_jwt_svid, server.validate_jwt_svid):
            with pytest.raises(Invalid, match=r"security header missing from request"):
                await unary(metadata, ME, b"")

    virtual.run(main())


def test_who_matches_no_entry_gets_nothing(folder):
    """PermissionDenied that says who called, and what to register."""

    async def main():
        server = api(folder, entry("x", "unix:uid:1000", "nsm:netns:1"))
        for peer in (ME, Peer(uid=1001, gid=100, pid=1), Peer()):
            with pytest.raises(Unauthorized, match=r"no identity issued: the caller with uid"):
                await first(server.fetch_x509_svid(HEADER, peer, b""))
        with pytest.raises(Unauthorized):
            await server.validate_jwt_svid(HEADER, ME, b"")

    virtual.run(main())


def test_a_caller_is_known_by_its_credentials():
    """uid, gid and pid from the socket, the network namespace by pid; nothing is made up."""
    netns = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - what the kernel says, read another way
    known = {"unix:uid:1000", "unix:gid:100", f"nsm:pid:{os.getpid()}", f"nsm:netns:{netns}"}
    assert attest(ME) == known | {f"nsm:started:{start_ticks(os.getpid())}"}
    assert attest(Peer(uid=0, gid=0, pid=0)) == {"unix:uid:0", "unix:gid:0"}
    assert attest(Peer(uid=1, gid=1, pid=2**22 + 1)) == {"unix:uid:1", "unix:gid:1", f"nsm:pid:{2**22 + 1}"}
    assert attest(Peer()) == frozenset()


def test_a_template_serves_a_mesh_of_one_host(folder):
    """Without entries, callers get an ID made of their credentials; an entry goes before the template."""

    async def main():
        server = api(folder, template=DEFAULT_TEMPLATE)
        svid, _ = read_x509_response(await first(server.fetch_x509_svid(HEADER, ME, b"")))
        assert svid.spiffe_id == "spiffe://my.nsm/uid/1000"
        server.entries.register(entry("named"))
        svid, _ = read_x509_response(await first(server.fetch_x509_svid(HEADER, ME, b"")))
        assert svid.spiffe_id == "spiffe://my.nsm/named"
        with pytest.raises(Unauthorized):
            await first(server.fetch_x509_svid(HEADER, Peer(), b""))

    virtual.run(main())
    template = Template("spiffe://td/ns/{netns}/gid/{gid}", "td")
    assert template.entry(frozenset({"nsm:netns:7", "unix:gid:5"})).spiffe_id == "spiffe://td/ns/7/gid/5"
    assert template.entry(frozenset({"unix:gid:5"})) is None


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://td/{x}",
        "spiffe://td/{uid",
        "spiffe://other/{uid}",
        "{uid}",
        "spiffe://td",
        "spiffe://td/{uid.real}",
        "spiffe://td/{uid:>9}",
        "spiffe://td/{}",
    ],
)
def test_a_bad_template_stops_the_start(text):
    """What could make no ID of this trust domain is refused when it is given."""
    with pytest.raises(Invalid):
        Template(text, "td")


@pytest.mark.parametrize(
    "change",
    [
        {"spiffe_id": "x"},
        {"spiffe_id": "spiffe://td"},
        {"selectors": frozenset()},
        {"ttl": 0},
        {"ttl": float("nan")},
        {"federates_with": ("X Y",)},
    ],
)
def test_a_bad_entry_is_refused(change):
    """Entries are checked when they are made."""
    with pytest.raises(Invalid):
        Entry(**{"selectors": frozenset({"a"}), "spiffe_id": "spiffe://td/x", **change})


def test_a_new_svid_is_pushed_at_half_life(folder):
    """The stream stays open, and sends a complete new message at each half of a life; keys are new."""

    async def main():
        server = api(folder, entry(ttl=3600))
        stream = server.fetch_x509_svid(HEADER, ME, b"")
        times, keys = [], set()
        async for message in stream:
            svid, _ = read_x509_response(message)
            times.append(round(CLOCK.monotonic()))
            keys.add(svid.key_der())
            assert svid.not_after - CLOCK.now() == pytest.approx(3600, abs=2)
            if len(times) == 4:
                break
        await stream.aclose()
        assert times == [0, 1800, 3600, 5400]
        assert len(keys) == 4

    virtual.run(main())


def test_callers_of_one_entry_share_an_svid(folder):
    """A restarted process gets the same SVID while it is fresh."""

    async def main():
        server = api(folder, entry())
        one, two = [await first(server.fetch_x509_svid(HEADER, ME, b"")) for _ in range(2)]
        assert one == two

    virtual.run(main())


def test_changes_are_pushed_at_once(folder, shop):
    """A new entry and a new foreign bundle each come as a whole new message; the end comes, too."""

    async def main():
        server = api(folder, entry(federates_with=("spiffe://other.nsm",)))
        stream = server.fetch_x509_svid(HEADER, ME, b"")
        bundles = server.fetch_x509_bundles(HEADER, ME, b"")
        assert len(read_x509_response(await anext(stream))[1]) == 1
        await anext(bundles)
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(1)
        foreign = Bundle("other.nsm", (shop.forge("other", ca=True).certificate,))
        server.federate(foreign)
        assert {one.trust_domain for one in read_x509_response(await waiting)[1]} == {"my.nsm", "other.nsm"}
        seen = workload_pb2.X509BundlesResponse.FromString(await anext(bundles)).bundles
        assert seen["spiffe://other.nsm"] == foreign.der()
        remove = server.entries.register(entry("more", "unix:gid:100"))
        assert len(workload_pb2.X509SVIDResponse.FromString(await anext(stream)).svids) == 2
        remove()
        remove()
        assert len(workload_pb2.X509SVIDResponse.FromString(await anext(stream)).svids) == 1
        server.entries.remove(entry(federates_with=("spiffe://other.nsm",)))
        with pytest.raises(Unauthorized):
            await anext(stream)
        assert CLOCK.monotonic() < 60

    virtual.run(main())


def test_a_new_authority_reaches_all_streams(folder):
    """When the CA prepares its successor, every kind of stream tells of it."""

    async def main():
        server = api(folder, entry())
        streams = [
            stream(HEADER, ME, b"")
            for stream in (server.fetch_x509_svid, server.fetch_x509_bundles, server.fetch_jwt_bundles)
        ]
        before = [await anext(stream) for stream in streams]
        await asyncio.sleep(LIFETIME * 0.6)
        server.maintain()
        after = [await anext(stream) for stream in streams]
        assert all(len(new) > len(old) for old, new in zip(before, after, strict=True))
        for stream in streams:
            await stream.aclose()

    virtual.run(main())


@pytest.mark.parametrize("step", [3600.0, 5 * 365 * 86400.0, -600.0, -86400.0])
def test_a_clock_that_is_set_brings_everybody_what_is_valid_by_it(folder, step):
    """An hour, five years, or a day back: whoever listens has another SVID at once, and bundles for it."""

    async def main():
        clock = virtual.SettableClock()
        ca = CertificateAuthority.open(folder, "my.nsm", clock=clock)
        server = WorkloadApi(ca, Entries(entry()), clock=clock)
        stream = server.fetch_x509_svid(HEADER, ME, b"")
        await anext(stream)
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(1)
        clock.by = step
        server.clock_was_set()
        svid, bundles = read_x509_response(await asyncio.wait_for(waiting, 1))
        verify_chain(list(svid.chain), {one.trust_domain: one for one in bundles}, clock.now())
        assert clock.now() < svid.not_after <= clock.now() + 3600
        await stream.aclose()

    virtual.run(main())


def jwt_request(*audience, spiffe_id=""):
    return workload_pb2.JWTSVIDRequest(audience=audience, spiffe_id=spiffe_id).SerializeToString()


def test_jwt_svids_are_minted_and_validated(folder):
    """A JWT-SVID for an audience verifies with the published key set, and by the API itself."""

    async def main():
        server = api(folder, entry("a"), entry("b", "unix:gid:100"))
        response = workload_pb2.JWTSVIDResponse.FromString(
            await server.fetch_jwt_svid(HEADER, ME, jwt_request("me", "you", spiffe_id="spiffe://my.nsm/b"))
        )
        assert [one.spiffe_id for one in response.svids] == ["spiffe://my.nsm/b"]
        token = response.svids[0].svid
        bundles = await first(server.fetch_jwt_bundles(HEADER, ME, b""))
        keys = json.loads(workload_pb2.JWTBundlesResponse.FromString(bundles).bundles["spiffe://my.nsm"])[
            "keys"
        ]
        parsed = jws.parse(token)
        key = next(one for one in keys if one["kid"] == parsed.header["kid"])
        x, y = (int.from_bytes(jws.decode(key[axis], axis), "big") for axis in "xy")
        assert parsed.verifies(ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())
        ask = workload_pb2.ValidateJWTSVIDRequest(audience="you", svid=token).SerializeToString()
        valid = workload_pb2.ValidateJWTSVIDResponse.FromString(
            await server.validate_jwt_svid(HEADER, ME, ask)
        )
        assert valid.spiffe_id == "spiffe://my.nsm/b"
        assert list(valid.claims["aud"]) == ["me", "you"]
        await asyncio.sleep(301)
        with pytest.raises(Invalid, match=r"expired"):
            await server.validate_jwt_svid(HEADER, ME, ask)

    virtual.run(main())


def test_bad_jwt_svids_are_refused(folder):
    """No audience, a foreign ID, another audience, another domain, another key, no token at all."""

    async def main():
        server = api(folder, entry("a"))
        with pytest.raises(Invalid, match=r"audience"):
            await server.fetch_jwt_svid(HEADER, ME, jwt_request())
        with pytest.raises(Unauthorized, match=r"has no identity"):
            await server.fetch_jwt_svid(HEADER, ME, jwt_request("x", spiffe_id="spiffe://my.nsm/z"))
        authority = CertificateAuthority.open(folder, "my.nsm", clock=CLOCK).active
        stranger = CertificateAuthority.open(folder.with_name("other"), "my.nsm", clock=CLOCK).active
        now = CLOCK.now()
        good = mint_jwt_svid(authority, "spiffe://my.nsm/a", ["x"], 60, now)
        for token in (
            "",
            "garbage",
            good[:-4] + "AAAA",
            mint_jwt_svid(stranger, "spiffe://my.nsm/a", ["x"], 60, now),
            mint_jwt_svid(authority, "spiffe://other.nsm/a", ["x"], 60, now),
            mint_jwt_svid(authority, "nobody", ["x"], 60, now),
            mint_jwt_svid(authority, "spiffe://my.nsm/a", ["y"], 60, now),
            mint_jwt_svid(authority, "spiffe://my.nsm/a", ["x"], -1, now),
            jws.sign({"typ": "x", "kid": authority.key_id}, {}, authority.jwt_key),
        ):
            ask = workload_pb2.ValidateJWTSVIDRequest(audience="x", svid=token).SerializeToString()
            with pytest.raises(MeshError):
                await server.validate_jwt_svid(HEADER, ME, ask)
        ask = workload_pb2.ValidateJWTSVIDRequest(svid=good).SerializeToString()
        with pytest.raises(Invalid):
            await server.validate_jwt_svid(HEADER, ME, ask)

    virtual.run(main())


@given(st.binary(max_size=60))
def test_any_request_is_answered_or_refused(data):
    """Bytes that are no message are InvalidArgument, and nothing else happens."""

    async def main():
        for unary in (_SHARED.fetch_jwt_svid, _SHARED.validate_jwt_svid):
            try:
                await unary(HEADER, ME, data)
            except MeshError:
                continue

    virtual.run(main())


class _Nobody:
    """A CA that is never asked for more than its names."""

    trust_domain = "my.nsm"
    authorities = ()
    active = None


_SHARED = WorkloadApi(_Nobody(), Entries(), clock=CLOCK)


def test_a_response_is_checked_before_it_is_believed(folder, shop):
    """No SVID, another name, a broken bundle: refused; a federated bundle cannot replace our own."""

    async def main():
        server = api(folder, entry())
        message = await first(server.fetch_x509_svid(HEADER, ME, b""))

        def changed(change):
            response = workload_pb2.X509SVIDResponse.FromString(message)
            change(response)
            return response.SerializeToString()

        for bad in (
            b"",
            b"garbage",
            changed(lambda one: setattr(one.svids[0], "spiffe_id", "spiffe://my.nsm/other")),
            changed(lambda one: setattr(one.svids[0], "bundle", b"x")),
            changed(lambda one: setattr(one.svids[0], "x509_svid_key", b"x")),
            changed(lambda one: setattr(one.svids[0], "x509_svid", b"")),
            changed(lambda one: one.federated_bundles.update({"Not A Domain": b""})),
        ):
            with pytest.raises(Invalid):
                read_x509_response(bad)
        other = shop.forge("evil", ca=True).der
        _, bundles = read_x509_response(changed(lambda one: one.federated_bundles.update({"my.nsm": other})))
        assert [bundle.der() for bundle in bundles] == [server._ca.bundle().der()]

    virtual.run(main())


@pytest.mark.parametrize("text", ["unix:///run/agent.sock", "tcp://127.0.0.1:8081", "tcp://[::1]:8081"])
def test_the_variable_says_where(text):
    """Unix with an absolute path, tcp with an IP literal."""
    assert workload_socket({"SPIFFE_ENDPOINT_SOCKET": text}) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "/run/x",
        "unix://x",
        "unix:///",
        "tcp://host:1",
        "tcp://1.2.3.4",
        "tcp://1.2.3.4:0",
        "http://1.2.3.4:1",
    ],
)
def test_a_bad_variable_is_said_so(text):
    """Everything else is one sentence with a remedy."""
    with pytest.raises(Invalid, match=r"SPIFFE_ENDPOINT_SOCKET"):
        workload_socket({"SPIFFE_ENDPOINT_SOCKET": text})


def test_recorded_requests_are_what_is_served(shop):
    """Go components ask for X509-SVIDs alone, with the security header."""
    _, events = shop.trace("workload-api")
    requests = [event for event in events if event["ev"] == "request"]
    assert {event["method"] for event in requests} == {"/SpiffeWorkloadAPI/FetchX509SVID"}
    assert all([SECURITY_HEADER, "true"] in event["metadata"] for event in requests)
