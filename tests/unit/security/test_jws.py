"""ES256 tokens: what is read, and that nothing else is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid
from nsmesh.security import jws
from nsmesh.security.jws import BadToken

KEY = ec.generate_private_key(ec.SECP256R1())
CLAIMS = {"sub": "spiffe://td/a", "aud": ["spiffe://td/b"], "exp": 1}
GOOD = jws.sign({"typ": "JWT"}, CLAIMS, KEY)


def token(header, claims, signature=b"\0" * 64):
    """Join parts that may be bytes, text or JSON."""
    parts = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in (header, claims)]
    return ".".join(jws.encode(part) for part in [*parts, signature])


def test_a_signed_token_is_read_and_verifies():
    """What sign makes, parse takes apart and the public key confirms."""
    parsed = jws.parse(GOOD)
    assert parsed.header == {"alg": "ES256", "typ": "JWT"}
    assert parsed.claims == CLAIMS
    assert parsed.verifies(KEY.public_key())
    assert not parsed.verifies(ec.generate_private_key(ec.SECP256R1()).public_key())
    assert not parsed.verifies(ec.generate_private_key(ec.SECP384R1()).public_key())


def test_other_curves_do_not_sign():
    """ES256 needs P-256."""
    with pytest.raises(Invalid, match=r"P-256"):
        jws.sign({}, {}, ec.generate_private_key(ec.SECP384R1()))


ES256 = {"alg": "ES256"}


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("empty", ""),
        ("parts", "garbage"),
        ("parts", GOOD + "."),
        ("parts", "." + GOOD),
        ("empty|JSON", ".."),
        ("JSON", token(b"x", CLAIMS)),
        ("no JSON object", token([1], CLAIMS)),
        ("no JSON object", token(ES256, [1])),
        ("no JSON object", token(ES256, "x")),
        ("JSON", token(ES256, b"\xff\xfe{}")),
        ("JSON", token(ES256, b"[" * 9000)),
        ("JSON", token(ES256, b'{"exp":' + b"1" * 5000 + b"}")),
        ("NaN", token(ES256, b'{"exp":NaN}')),
        ("Infinity", token(ES256, b'{"exp":-Infinity}')),
        ("twice", token(ES256, b'{"aud":["a"],"aud":["b"]}')),
        ("crit", token({"alg": "ES256", "crit": ["x"]}, CLAIMS)),
        ("algorithm", token({}, CLAIMS)),
        ("algorithm", token({"alg": "none"}, CLAIMS, b"")),
        ("algorithm", token({"alg": "es256"}, CLAIMS)),
        ("algorithm", token({"alg": ["ES256"]}, CLAIMS)),
        ("algorithm", token({"alg": "RS256"}, CLAIMS)),
        ("64", token(ES256, CLAIMS, b"\0" * 63)),
        ("64", token(ES256, CLAIMS, b"\0" * 65)),
        ("64", token(ES256, CLAIMS, b"")),
        ("base64url", GOOD + "="),
        ("base64url", GOOD[:-1] + "/"),
        ("base64url", GOOD[:-1]),
        ("base64url", GOOD + "\n"),
        ("ASCII", GOOD[:-1] + "ä"),
        ("more than", "a" * 1_000_000),
        ("more than", token(ES256, {"x": "y" * 16_000})),
    ],
)
def test_everything_else_is_refused(why, text):
    """Each malformed token is refused with a reason, in a time that does not grow with its size."""
    begin = time.process_time()
    with pytest.raises(BadToken, match=why):
        jws.parse(text)
    assert time.process_time() - begin < 0.5


def test_a_public_key_is_no_shared_secret():
    """HS256 with the public key as its secret, the classic confusion, is refused unread."""
    secret = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = ".".join(jws.encode(json.dumps(one).encode()) for one in ({"alg": "HS256"}, CLAIMS))
    mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    with pytest.raises(BadToken, match=r"HS256"):
        jws.parse(f"{signed}.{jws.encode(mac)}")


@pytest.mark.parametrize("signature", [b"\0" * 64, b"\xff" * 64, b"\0" * 32 + b"\x01" * 32])
def test_degenerate_signatures_do_not_verify(signature):
    """Zeros and numbers beyond the curve's order sign nothing, and break nothing."""
    assert not jws.parse(token(ES256, CLAIMS, signature)).verifies(KEY.public_key())


@given(st.text(max_size=300))
@example("eyJ.eyJ.x")
def test_any_text_is_a_token_or_a_clean_refusal(text):
    """The parser never fails in another way."""
    with pytest.raises(BadToken):
        jws.parse(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["sub", "aud", "exp", "x"]), json_values))
def test_any_claims_survive(claims):
    """Whatever JSON object is signed comes back, and verifies."""
    parsed = jws.parse(jws.sign({}, claims, KEY))
    assert parsed.claims == claims
    assert parsed.verifies(KEY.public_key())


@given(st.integers(0, len(GOOD) - 1), st.characters(codec="ascii"))
def test_any_change_of_a_character_is_noticed(position, char):
    """A token with one other character is refused or does not verify."""
    text = GOOD[:position] + char + GOOD[position + 1 :]
    if text == GOOD:
        return
    try:
        assert not jws.parse(text).verifies(KEY.public_key())
    except BadToken:
        return


@given(st.binary(max_size=100))
def test_base64url_is_canonical(data):
    """One text for each value, and the one that everybody writes."""
    assert jws.decode(jws.encode(data), "x") == data
    assert jws.encode(data) == base64.urlsafe_b64encode(data).decode().rstrip("=")
