"""JSON Web Signatures, compact, ES256 and nothing else; strict in what it reads.

There is one algorithm, so there is nothing to negotiate and nothing to confuse: the text is taken apart
under limits, and a key is only ever used as an EC P-256 key.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from nsmesh.core.errors import Invalid

MAX_TOKEN = 16 * 1024
"""Longest token that is looked at, bytes; those of the mesh have about 330."""
SIGNATURE = 64
"""Bytes of an ES256 signature: r and s, 32 bytes each."""

_ALGORITHM = ec.ECDSA(hashes.SHA256())


class BadToken(Invalid):
    """A text is no ES256 token; ``what`` says why."""


@dataclass(frozen=True, slots=True)
class Jws:
    """A token taken apart. Its signature is *not* verified."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes

    def verifies(self, key: ec.EllipticCurvePublicKey) -> bool:
        """Whether ``key`` (EC P-256) made the signature."""
        if not isinstance(key.curve, ec.SECP256R1):
            return False
        r, s = int.from_bytes(self.signature[:32], "big"), int.from_bytes(self.signature[32:], "big")
        try:
            key.verify(encode_dss_signature(r, s), self.signed, _ALGORITHM)
        except InvalidSignature:
            return False
        return True


def encode(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str, part: str) -> bytes:
    """Return the bytes of base64url without padding; raises BadToken for any other spelling of them."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise BadToken(f"the {part} of the token is not base64url") from error
    if encode(data) != text:
        raise BadToken(f"the {part} of the token is not canonical base64url")
    return data


def _no_constant(name: str) -> NoReturn:
    raise BadToken(f"the token has the number {name}, which is not JSON")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadToken("the token has a key twice")
    return found


def _object(text: str, part: str) -> dict[str, Any]:
    data = decode(text, part)
    try:
        found = json.loads(data.decode(), parse_constant=_no_constant, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise BadToken(f"the {part} of the token is not JSON") from error
    if not isinstance(found, dict):
        raise BadToken(f"the {part} of the token is no JSON object")
    return found


def parse(text: str) -> Jws:
    """Take a compact token apart; raises BadToken for everything that is no well-formed ES256 token."""
    if not text:
        raise BadToken("the token is empty")
    if len(text) > MAX_TOKEN:
        raise BadToken(f"the token has {len(text)} characters, more than {MAX_TOKEN}")
    if not text.isascii():
        raise BadToken("the token is not ASCII")
    parts = text.split(".")
    if len(parts) != 3:
        raise BadToken(f"the token has {len(parts)} parts, not 3")
    header = _object(parts[0], "header")
    if header.get("alg") != "ES256":
        raise BadToken(f"the token's algorithm is {str(header.get('alg'))[:20]!a}, not ES256")
    if "crit" in header:
        raise BadToken("the token demands extensions that are not known (crit)")
    claims = _object(parts[1], "claims")
    signature = decode(parts[2], "signature")
    if len(signature) != SIGNATURE:
        raise BadToken(f"the token's signature has {len(signature)} bytes, not {SIGNATURE}")
    return Jws(header, claims, text[: -len(parts[2]) - 1].encode(), signature)


def sign(header: Mapping[str, Any], claims: Mapping[str, Any], key: ec.EllipticCurvePrivateKey) -> str:
    """Return a compact ES256 token; ``header`` comes without ``alg``. Raises Invalid unless P-256."""
    if not isinstance(key.curve, ec.SECP256R1):
        raise Invalid(f"a key of curve {key.curve.name} cannot sign tokens", remedy="use EC P-256 SVIDs")
    text = ".".join(
        encode(json.dumps(part, separators=(",", ":")).encode())
        for part in ({"alg": "ES256", **header}, claims)
    )
    r, s = decode_dss_signature(key.sign(text.encode(), _ALGORITHM))
    return f"{text}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
