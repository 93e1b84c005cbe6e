"""Join tokens and signing requests: read as printed, proved without being sent."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import (
    CertificateSigningRequestBuilder,
    Name,
    SubjectAlternativeName,
    UniformResourceIdentifier,
)
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid
from nsmesh.security.join_token import JoinToken, proves
from nsmesh.security.signing_request import make_request, prove_renewal, read_request, renews, text_of

PIN = bytes(range(32))


def test_a_token_reads_as_it_is_printed():
    """Id, secret and pin come back, and the secret is in no repr."""
    token = JoinToken.new(PIN)
    assert JoinToken.parse(f" {token}\n") == token
    assert repr(token.secret) not in repr(token)
    assert str(token).count(".") == 3


@given(st.text(max_size=120))
def test_no_other_text_is_a_token(text):
    """Whatever is given is refused in one sentence that does not repeat it."""
    with pytest.raises(Invalid, match="this is no join token"):
        JoinToken.parse(text)


def test_a_proof_is_for_one_claim_one_mesh_one_token():
    """A bit of difference in claim, pin, token or proof, and it proves nothing."""
    token = JoinToken.new(PIN)
    proof = token.prove(b"claim")
    assert proves(token.verifier(), PIN, b"claim", proof)
    assert not proves(token.verifier(), PIN, b"Claim", proof)
    assert not proves(token.verifier(), bytes(32), b"claim", proof)
    assert not proves(JoinToken.new(PIN).verifier(), PIN, b"claim", proof)
    assert not proves(token.verifier(), PIN, b"claim", proof[:-1])
    assert not proves(b"short", PIN, b"claim", proof)
    assert token.secret not in proof


def test_requests():
    """ID and key come back; the key's holder alone can renew with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    identity, public = read_request(make_request(key, "spiffe://m.nsmesh/node/a"))
    assert str(identity) == "spiffe://m.nsmesh/node/a"
    known = text_of(public)
    proof = prove_renewal(key, b"claim")
    assert renews(known, b"claim", proof)
    assert not renews(known, b"other", proof)
    assert not renews(text_of(ec.generate_private_key(ec.SECP256R1()).public_key()), b"claim", proof)
    assert not renews("00", b"claim", proof)
    assert not renews("no hexadecimal", b"claim", proof)


def request(key, *uris):
    names = SubjectAlternativeName([UniformResourceIdentifier(uri) for uri in uris])
    builder = CertificateSigningRequestBuilder().subject_name(Name([]))
    builder = builder.add_extension(names, critical=False) if uris else builder
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_bent_requests_are_refused():
    """No ID, two, none of SPIFFE, a key of another kind, a bent signature, too many bytes, none."""
    key = ec.generate_private_key(ec.SECP256R1())
    good = make_request(key, "spiffe://m.nsmesh/node/a")
    bent = good[:-1] + bytes([good[-1] ^ 1])
    other = ec.generate_private_key(ec.SECP384R1())
    for wrong in (
        b"",
        b"x",
        bent,
        good * 40,
        request(key),
        request(key, "spiffe://a/b", "spiffe://a/c"),
        request(key, "https://a"),
        request(other, "spiffe://a/b"),
        request(rsa.generate_private_key(65537, 2048), "spiffe://a/b"),
    ):
        with pytest.raises(Invalid):
            read_request(wrong)
