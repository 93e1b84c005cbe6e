"""Path tokens: minting, reading, verifying, remembering."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.call import Peer
from nsmesh.core.errors import Invalid, Unauthorized
from nsmesh.security import jws
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import SvidSource
from nsmesh.security.token import REUSE, BadToken, TokenMinter, TokenReader, read_claims


@dataclass
class Hands:
    """A clock that is moved by hand."""

    time: float = 1_700_000_000.5

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def clock():
    return Hands()


@pytest.fixture
def ca(tmp_path, clock):
    return CertificateAuthority.open(tmp_path / "ca", "my.nsm", clock=clock)


@pytest.fixture
def source(ca, clock):
    return SvidSource(ca.issue("spiffe://my.nsm/nsc"), [ca.bundle()], clock=clock)


def peer_of(svid):
    return Peer(spiffe_id=svid.spiffe_id, certificate=svid.chain[0])


def test_a_token_is_what_the_contract_says(ca, source, clock):
    """Header {alg, typ}; claims sub, aud of one, integer exp; about 330 bytes; signed by the SVID's key."""
    token, expires = TokenMinter(source, clock=clock).mint(
        peer_of(ca.issue("spiffe://my.nsm/ns/x/pod/nsmgr"))
    )
    head, claims, _ = token.split(".")
    assert jws.decode(head, "") == b'{"alg":"ES256","typ":"JWT"}'
    assert json.loads(jws.decode(claims, "")) == {
        "sub": "spiffe://my.nsm/nsc",
        "aud": ["spiffe://my.nsm/ns/x/pod/nsmgr"],
        "exp": 1_700_000_600,
    }
    assert expires == 1_700_000_600
    assert len(token) < 400
    assert TokenReader().signed(token, source.svid.chain[0])


def test_a_token_ends_before_what_it_vouches_for(ca, clock):
    """Its exp is not later than our own SVID's end, its expiry not later than the peer's either."""
    source = SvidSource(ca.issue("spiffe://my.nsm/nsc", 300), [ca.bundle()], clock=clock)
    minter = TokenMinter(source, clock=clock)
    long, short = (peer_of(ca.issue("spiffe://my.nsm/nsmgr", ttl)) for ttl in (3600, 120))
    token, expires = minter.mint(long)
    assert expires == read_claims(token).expires == 1_700_000_300
    assert minter.mint(short) == (token, 1_700_000_120)
    clock.time += 1000
    token, expires = minter.mint(long)  # for a Close that is due; a peer that looks at it refuses it
    assert expires == read_claims(token).expires == 1_700_000_300


def test_a_token_is_minted_once_per_audience_and_part_of_life(ca, source, clock):
    """The same token while nearly all of its life is left; then a new one; never one of another audience."""
    minter = TokenMinter(source, clock=clock)
    one, two = (peer_of(ca.issue(f"spiffe://my.nsm/{name}")) for name in ("one", "two"))
    first = minter.mint(one)
    assert minter.mint(one) == first != minter.mint(two)
    clock.time += 600 * REUSE - 1
    assert minter.mint(one) == first
    clock.time += 2
    assert minter.mint(one) != first
    assert minter.mint(one)[1] >= clock.time + 600 * (1 - REUSE) - 1


def test_a_rotated_svid_mints_anew(ca, source, clock):
    """What the old key signed is not handed out any more: the peer will see the new leaf."""
    minter = TokenMinter(source, clock=clock)
    peer = peer_of(ca.issue("spiffe://my.nsm/nsmgr"))
    old, _ = minter.mint(peer)
    source.update(ca.issue("spiffe://my.nsm/nsc"), [ca.bundle()])
    new, _ = minter.mint(peer)
    assert new != old
    assert TokenReader().signed(new, source.svid.chain[0])
    assert not TokenReader().signed(old, source.svid.chain[0])


def test_whom_a_token_can_be_addressed_to(source, clock, shop, root):
    """A role of this process shares our ID; a peer without an ID, or with two, gets no token."""
    minter = TokenMinter(source, clock=clock)
    token, _ = minter.mint(Peer(in_process=True))
    assert read_claims(token).audience == ("spiffe://my.nsm/nsc",)
    assert read_claims(minter.mint(Peer(spiffe_id="spiffe://x/y"))[0]).audience == ("spiffe://x/y",)
    with pytest.raises(Unauthorized, match=r"without a SPIFFE ID"):
        minter.mint(Peer(uid=0))
    two = shop.forge("x", ("spiffe://x/a", "spiffe://x/b"), issuer=root)
    with pytest.raises(Unauthorized, match=r"exactly one URI"):
        minter.mint(Peer(certificate=two.der))
    with pytest.raises(Invalid):
        TokenMinter(source, lifetime=0, clock=clock)


@pytest.mark.parametrize(
    ("claims", "subject", "audience", "expires"),
    [
        ({}, None, None, None),
        ({"sub": "a", "aud": ["b"], "exp": 1.5}, "a", ("b",), 1.5),
        ({"sub": 1, "aud": "b", "exp": "2"}, None, None, None),
        ({"aud": {"x": "b"}, "exp": True}, None, None, None),
        ({"aud": [], "exp": None}, None, (), None),
        ({"aud": ["a", 1, None], "exp": 10**400}, None, ("a", 1, None), None),
    ],
)
def test_claims_of_a_wrong_type_are_absent(claims, subject, audience, expires, shop):
    """Nothing is taken for what it is not: no string for a list, no true for 1, no text for a time."""
    found = read_claims(jws.sign({}, claims, shop.new_key()))
    assert (found.subject, found.audience, found.expires) == (subject, audience, expires)


def test_a_number_beyond_all_times_is_no_time(shop):
    """1e999 is no way to live for ever."""
    key = shop.new_key()
    good = jws.sign({}, {"exp": 1}, key).split(".")
    good[1] = jws.encode(b'{"exp":1e999}')
    assert read_claims(".".join(good)).expires is None


def test_a_reader_remembers_verdicts_and_not_more(source, clock, ca, leaf):
    """Read and verified once per token and leaf; refusals are not confused with other leaves."""
    token, _ = TokenMinter(source, clock=clock).mint(Peer(in_process=True))
    reader = TokenReader()
    own = source.svid.chain[0]
    assert reader.signed(token, own)
    assert reader.signed(token, own)
    assert not reader.signed(token, leaf.der)
    assert not reader.signed(token, b"")
    assert not reader.signed("x", own)
    assert reader.read(token) is reader.read(token)
    for _ in range(2):
        with pytest.raises(BadToken):
            reader.read("garbage")


def test_long_tokens_are_not_remembered(shop):
    """Nobody fills our memory with tokens of his own make."""
    reader = TokenReader()
    long = jws.sign({}, {"x": "y" * 8000}, shop.new_key())
    reader.read(long)
    assert not reader._read


@given(st.text())
def test_any_text_has_claims_or_is_refused(text):
    """Garbage is a clean refusal."""
    with pytest.raises(BadToken):
        TokenReader().read(text)


@pytest.mark.parametrize("file", ["local-kernel", "remote-vxlan", "nse-nsmgr-register", "errors-tokens"])
def test_tokens_of_the_go_implementation_are_read_and_verify(shop, file):
    """Every recorded token of a Go component has the recorded claims, and its own leaf verifies it."""
    header, _ = shop.trace(file)
    leaves = {
        role: x509.load_pem_x509_certificate(one["leaf"].encode()).public_bytes(Encoding.DER)
        for role, one in header["identities"].items()
    }
    reader = TokenReader()
    go = [role for role, component in header["components"].items() if component["kind"] == "go"]
    checked = 0
    for recorded in header["tokens"].values():
        if recorded["signature"] not in go or recorded["signature"] not in leaves:
            continue
        claims = reader.read(recorded["raw"])
        assert claims.subject == recorded["claims"]["sub"]
        assert list(claims.audience or ()) == recorded["claims"]["aud"]
        assert claims.expires == recorded["claims"]["exp"]
        assert reader.signed(recorded["raw"], leaves[recorded["signature"]])
        checked += 1
    assert checked > 5


def test_what_goes_over_an_older_connection_is_signed_with_the_older_key(ca, source, clock):
    """Minted or in an answer, a token fits the leaf that its reader was shown, until that one ends."""
    old = source.svid
    minter = TokenMinter(source, clock=clock)
    asks = ca.issue("spiffe://my.nsm/nsmgr")
    older = Peer(asks.spiffe_id, asks.chain[0], shown=old.chain[0])
    source.update(ca.issue("spiffe://my.nsm/nsc"), [ca.bundle()])
    newer = Peer(asks.spiffe_id, asks.chain[0], shown=source.svid.chain[0])
    signed = TokenReader().signed
    assert signed(minter.mint(older)[0], old.chain[0])
    token, _ = minter.mint(newer)
    assert signed(token, source.svid.chain[0])
    fitting = minter.fit(token, older)
    assert signed(fitting, old.chain[0])
    assert read_claims(fitting) == read_claims(token)
    assert minter.fit(token, newer) is token
    assert minter.fit(token, Peer(asks.spiffe_id, shown=b"another's")) is token
    clock.time += 10_000_000
    assert minter.fit(token, older) is token
