"""SPIFFE IDs and the rules of a leaf."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid, Unauthorized
from nsmesh.security.spiffe import Rule, SpiffeId, read_leaf, trust_domain_of


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://td/x",
        "SPIFFE://td/x",
        "spiffe://",
        "spiffe:///x",
        "spiffe://TD/x",
        "spiffe://td:8080/x",
        "spiffe://user@td/x",
        "spiffe://td/",
        "spiffe://td//x",
        "spiffe://td/x/",
        "spiffe://td/../x",
        "spiffe://td/./x",
        "spiffe://td/x?y",
        "spiffe://td/x#y",
        "spiffe://td/a%20b",
        "spiffe://td/ü",
        "spiffe://td/x\n",
        "spiffe://" + "a" * 256 + "/x",
        "spiffe://td/" + "a" * 2048,
    ],
)
def test_what_is_no_spiffe_id_is_refused(text):
    """Only what the SPIFFE standard allows is an ID."""
    with pytest.raises(Invalid):
        SpiffeId.parse(text)


_part = st.text("abcXYZ019.-_", min_size=1, max_size=12).filter(lambda part: part not in (".", ".."))


@given(st.text("abcz019.-_", min_size=1, max_size=20), st.lists(_part, max_size=5))
def test_an_id_survives_reading_and_writing(domain, parts):
    """Text to ID to text changes nothing."""
    text = "/".join([f"spiffe://{domain}", *parts])
    parsed = SpiffeId.parse(text)
    assert str(parsed) == text
    assert parsed.trust_domain == domain == trust_domain_of(text) == trust_domain_of(domain)


@given(st.text(max_size=80))
def test_any_text_is_an_id_or_a_clean_refusal(text):
    """The parser never fails in another way."""
    try:
        read = str(SpiffeId.parse(text))
    except Invalid:
        return
    assert read == text


def test_a_good_leaf_is_read(leaf, shop):
    """ID, key and times of a conformant leaf come out."""
    read = read_leaf(leaf.der)
    assert (str(read.id), read.not_after) == ("spiffe://test.nsm/nsc", shop.now + 3600)


def test_a_leaf_without_key_usage_passes(shop, root):
    """Absent extensions limit nothing, as peers of the field have it."""
    made = shop.forge("x", ("spiffe://test.nsm/x",), issuer=root, ca=None, dns=("nsm",))
    assert str(read_leaf(made.der).id) == "spiffe://test.nsm/x"


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        (Rule.ONE_URI, {"uris": ()}),
        (Rule.ONE_URI, {"uris": (), "dns": ("nsm",)}),
        (Rule.ONE_URI, {"uris": ("spiffe://test.nsm/a", "spiffe://test.nsm/b")}),
        (Rule.ONE_URI, {"uris": ("spiffe://test.nsm/a", "https://example.org")}),
        (Rule.SPIFFE_ID, {"uris": ("https://example.org/a",)}),
        (Rule.SPIFFE_ID, {"uris": ("spiffe://test.nsm",)}),
        (Rule.NOT_A_CA, {"ca": True}),
        (Rule.P256, {"key": ec.generate_private_key(ec.SECP384R1())}),
        (Rule.P256, {"key": rsa.generate_private_key(65537, 2048)}),
        (Rule.P256, {"key": ed25519.Ed25519PrivateKey.generate()}),
    ],
)
def test_each_broken_rule_is_named(shop, root, rule, change):
    """A refusal says which rule the certificate breaks, and what to do."""
    made = shop.forge("x", **{"uris": ("spiffe://test.nsm/x",), "issuer": root, **change})
    with pytest.raises(Unauthorized) as caught:
        read_leaf(made.der)
    assert f"'{rule}'" in caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize(
    "bits",
    [
        {"digital_signature": True, "key_cert_sign": True},
        {"digital_signature": True, "crl_sign": True},
        {"key_encipherment": True},
    ],
)
def test_key_usage_of_a_signer_is_demanded(shop, root, bits):
    """A leaf may sign messages, and neither certificates nor lists."""
    made = shop.forge("x", ("spiffe://test.nsm/x",), issuer=root, key_usage=shop.usage(**bits))
    with pytest.raises(Unauthorized, match=r"key usage"):
        read_leaf(made.der)


@given(st.binary(max_size=200))
def test_garbage_is_a_clean_refusal(data):
    """Bytes that are no certificate break the first rule and nothing else."""
    with pytest.raises(Unauthorized):
        read_leaf(data)


def test_a_cut_or_flipped_certificate_never_crashes(leaf):
    """Damage at any byte is read, or refused cleanly."""
    der = leaf.der
    for position in range(0, len(der), 3):
        for data in (der[:position], der[:position] + bytes([der[position] ^ 0x41]) + der[position + 1 :]):
            try:
                read_leaf(data)
            except Unauthorized:
                continue


def test_two_extensions_of_a_kind_are_refused(shop, root):
    """What the library finds inconsistent is refused as unreadable, not passed on as its error."""
    made = shop.forge(
        "x",
        issuer=root,
        extra=(
            (
                x509.SubjectAlternativeName([x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")]),
                False,
            ),
        ),
    )
    with pytest.raises(Unauthorized):
        read_leaf(made.der)
