"""Chains and bundles."""

from __future__ import annotations

import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid, Unauthorized
from nsmesh.security.verify import MAX_CHAIN, Bundle, Verifier, load_certificates, verify_chain

ID = ("spiffe://test.nsm/x",)


@pytest.fixture
def bundles(root):
    return {"test.nsm": Bundle("test.nsm", (root.certificate,))}


def test_a_leaf_of_the_bundle_verifies(leaf, bundles, shop):
    """A leaf that an authority of its own trust domain issued is believed, until it ends."""
    found, until = verify_chain([leaf.der], bundles, shop.now)
    assert str(found.id) == "spiffe://test.nsm/nsc"
    assert until == shop.now + 3600


def test_a_chain_over_intermediates_verifies_in_any_order(shop, root, bundles):
    """Intermediates are found by name and signature; strangers among them do no harm."""
    first = shop.forge("first", issuer=root, ca=True, path_length=1)
    second = shop.forge("second", issuer=first, ca=True, path_length=0)
    stranger = shop.forge("second", ca=True)
    leaf = shop.forge("leaf", ID, issuer=second)
    for order in ([first, second, stranger], [stranger, second, first]):
        found, _ = verify_chain([leaf.der, *(one.der for one in order)], bundles, shop.now)
        assert str(found.id) == ID[0]


def test_a_bundle_may_hold_an_intermediate_alone(shop, root):
    """An authority of the bundle is an anchor also where it is not self-signed."""
    middle = shop.forge("middle", issuer=root, ca=True)
    leaf = shop.forge("leaf", ID, issuer=middle)
    verify_chain([leaf.der], {"test.nsm": Bundle("test.nsm", (middle.certificate,))}, shop.now)


def test_several_authorities_of_one_name_are_tried(shop, root):
    """While a CA is rotated under one name, leaves of both keys verify."""
    twin = shop.forge("root", ca=True)
    both = {"test.nsm": Bundle("test.nsm", (root.certificate, twin.certificate))}
    for issuer in (root, twin):
        verify_chain([shop.forge("leaf", ID, issuer=issuer).der], both, shop.now)


def test_the_bundle_of_another_trust_domain_does_not_help(shop, root):
    """With federation, one domain's authority cannot vouch for another domain's ID."""
    other = shop.forge("other", ca=True)
    known = {
        "test.nsm": Bundle("test.nsm", (root.certificate,)),
        "other.nsm": Bundle("other.nsm", (other.certificate,)),
    }
    leaf = shop.forge("leaf", ID, issuer=other)
    with pytest.raises(Unauthorized, match=r"does not lead to the bundle of test\.nsm"):
        verify_chain([leaf.der], known, shop.now)
    with pytest.raises(Unauthorized, match=r"there is no bundle"):
        verify_chain([shop.forge("l", ("spiffe://third.nsm/x",), issuer=root).der], known, shop.now)


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("expired", {"life": (1_699_000_000, 1_699_999_999)}),
        ("not valid before", {"life": (1_700_000_001, 1_700_009_999)}),
        (
            "critical extension",
            {"extra": ((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),)},
        ),
    ],
)
def test_a_leaf_out_of_time_or_with_unknown_demands_is_refused(shop, root, bundles, why, change):
    """The refusal says what is wrong with the leaf."""
    leaf = shop.forge("leaf", ID, issuer=root, **change)
    with pytest.raises(Unauthorized, match=why):
        verify_chain([leaf.der], bundles, shop.now)


def test_a_self_signed_leaf_is_refused(shop, bundles):
    """Who vouches for himself is not believed, also under the authority's name."""
    for subject in ("leaf", "root"):
        leaf = shop.forge(subject, ID)
        with pytest.raises(Unauthorized, match=r"does not lead"):
            verify_chain([leaf.der], bundles, shop.now)


def test_a_leaf_cannot_issue(shop, root, bundles, leaf):
    """A workload's own certificate makes no other."""
    child = shop.forge("child", ID, issuer=leaf)
    with pytest.raises(Unauthorized, match=r"is no CA"):
        verify_chain([child.der, leaf.der], bundles, shop.now)


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("no CA", {"ca": None}),
        ("expired", {"ca": True, "life": (1_699_000_000, 1_699_999_999)}),
        ("may not sign certificates", {"ca": True, "key_usage": None}),
        (
            "name constraints",
            {"ca": True, "extra": ((x509.NameConstraints([x509.DNSName("x")], None), False),)},
        ),
    ],
)
def test_an_intermediate_that_may_not_issue_is_refused(shop, root, bundles, why, change):
    """Each of an issuer's own limits is kept."""
    if "key_usage" in change:
        change = {**change, "key_usage": shop.usage(digital_signature=True)}
    middle = shop.forge("middle", issuer=root, **change)
    leaf = shop.forge("leaf", ID, issuer=middle)
    with pytest.raises(Unauthorized, match=why):
        verify_chain([leaf.der, middle.der], bundles, shop.now)


def test_an_authority_that_expired_is_no_authority(shop):
    """Anchors have an end, too."""
    old = shop.forge("old", ca=True, life=(1_600_000_000, 1_699_999_999))
    leaf = shop.forge("leaf", ID, issuer=old)
    with pytest.raises(Unauthorized, match=r"expired"):
        verify_chain([leaf.der], {"test.nsm": Bundle("test.nsm", (old.certificate,))}, shop.now)


def test_path_length_is_kept(shop, root, bundles):
    """A CA with path length 0 issues leaves alone."""
    first = shop.forge("first", issuer=root, ca=True, path_length=0)
    second = shop.forge("second", issuer=first, ca=True)
    leaf = shop.forge("leaf", ID, issuer=second)
    with pytest.raises(Unauthorized, match=r"path length"):
        verify_chain([leaf.der, second.der, first.der], bundles, shop.now)


def test_a_forged_signature_is_refused(shop, root, bundles):
    """A name of the authority without its key is worth nothing, of whatever kind the key is."""
    leaf = shop.forge("leaf", ID, issuer=root, signer=shop.new_key())
    with pytest.raises(Unauthorized, match=r"signature was not made"):
        verify_chain([leaf.der], bundles, shop.now)
    wrong_kind = shop.forge("leaf", ID, issuer=root, signer=rsa.generate_private_key(65537, 2048))
    with pytest.raises(Unauthorized, match=r"signature"):
        verify_chain([wrong_kind.der], bundles, shop.now)


def test_hostile_chains_end_in_bounded_time(shop, root, bundles):
    """Many CAs of one name that sign each other cost a bounded number of steps."""
    ring = [shop.forge("ring", ca=True) for _ in range(40)]
    leaf = shop.forge("leaf", ID, issuer=ring[0])
    begin = time.process_time()
    with pytest.raises(Unauthorized):
        verify_chain([leaf.der, *(one.der for one in ring)], bundles, shop.now)
    chain = [root]
    for depth in range(MAX_CHAIN + 2):
        chain.append(shop.forge(f"deep-{depth}", issuer=chain[-1], ca=True))
    deep = shop.forge("leaf", ID, issuer=chain[-1])
    with pytest.raises(Unauthorized):
        verify_chain([deep.der, *(one.der for one in reversed(chain))], bundles, shop.now)
    assert time.process_time() - begin < 2


def test_an_empty_chain_is_refused(bundles, shop):
    """No certificate, no identity."""
    with pytest.raises(Unauthorized, match=r"showed no certificate"):
        verify_chain([], bundles, shop.now)


def test_a_remembered_leaf_ends_with_its_chain(shop, root, leaf, bundles):
    """A verdict is not worth more than the certificates: at their end it is asked again, and refused."""
    verifier = Verifier()
    assert verifier.verify([leaf.der], bundles, shop.now) is verifier.verify(
        [leaf.der], bundles, shop.now + 1
    )
    with pytest.raises(Unauthorized, match=r"expired"):
        verifier.verify([leaf.der], bundles, shop.now + 3601)
    with pytest.raises(Unauthorized, match=r"not valid before"):
        verifier.verify([leaf.der], bundles, shop.now - 61)


def test_a_remembered_leaf_ends_with_its_bundle(shop, leaf, bundles):
    """When the authority leaves the bundle, its leaves are refused at once."""
    verifier = Verifier()
    verifier.verify([leaf.der], bundles, shop.now)
    other = Bundle("test.nsm", (shop.forge("root", ca=True).certificate,))
    with pytest.raises(Unauthorized):
        verifier.verify([leaf.der], {"test.nsm": other}, shop.now)


def test_bundles_are_read_back(shop, root):
    """DER, concatenated, and back; fingerprints tell bundles apart."""
    other = shop.forge("other", ca=True)
    bundle = Bundle("test.nsm", (root.certificate, other.certificate))
    again = Bundle.from_der("test.nsm", bundle.der())
    assert again.fingerprint == bundle.fingerprint != Bundle("test.nsm", (root.certificate,)).fingerprint
    with pytest.raises(Invalid):
        Bundle.from_der("test.nsm", bundle.der()[:-1])
    with pytest.raises(Invalid):
        Bundle.from_pem("test.nsm", b"x")


@given(st.binary(max_size=64))
def test_garbage_is_no_bundle(data):
    """Whatever bytes come, they are certificates or a clean refusal."""
    if data:
        with pytest.raises(Invalid):
            load_certificates(data)


@pytest.mark.parametrize("file", ["local-kernel", "errors-tokens", "registry-owner", "nsc-nsmgr-basic"])
def test_leaves_of_the_go_implementation_verify(shop, file):
    """The certificates that were seen in recorded conversations lead to the recorded bundle."""
    header, _ = shop.trace(file)
    bundle = Bundle.from_pem("test.nsm", header["bundle"].encode())
    for role in header["identities"].values():
        certificate = x509.load_pem_x509_certificate(role["leaf"].encode())
        when = certificate.not_valid_before_utc.timestamp() + 30
        found, _ = verify_chain([certificate.public_bytes(Encoding.DER)], {"test.nsm": bundle}, when)
        assert str(found.id) == role["spiffe_id"]
