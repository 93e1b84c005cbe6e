"""Join tokens: what lets one host into a mesh, once, and tells it which mesh that is.

``nsm1.ID.SECRET.PIN``: the token's public name; 16 random bytes; the SHA-256 of the public key of the mesh's
CA. An Ed25519 key is made of the secret. The mesh keeps only its public half, which is one-way as a hash
is, and cannot answer for the secret either. A host proves that it has the token by a signature: the
secret itself is never sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from nsmesh.core.errors import Invalid

PREFIX = "nsm1"
_SECRET, _PIN = 16, 32
_CONTEXT = b"nsmesh join 1\0"
_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """One token. ``pin``: what :func:`pin_of` returns for the CA of the mesh."""

    id: str
    secret: bytes = field(repr=False)
    pin: bytes

    @classmethod
    def new(cls, pin: bytes) -> Self:
        """Return a new token for the mesh of ``pin``."""
        return cls(secrets.token_hex(4), secrets.token_bytes(_SECRET), pin)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a token as it is printed; raises Invalid, without repeating it."""
        parts = text.strip().split(".")
        wrong = Invalid(
            "this is no join token: it reads nsm1.ID.SECRET.PIN, in one piece",
            remedy="copy it whole from: nsm token create",
        )
        if len(parts) != 4 or parts[0] != PREFIX or not _ID.fullmatch(parts[1]):
            raise wrong
        try:
            secret, pin = (_decoded(part) for part in parts[2:])
        except (binascii.Error, ValueError):
            raise wrong from None
        if (len(secret), len(pin)) != (_SECRET, _PIN):
            raise wrong
        return cls(parts[1], secret, pin)

    def __str__(self) -> str:
        """Return the token as it is given to a host. Keep it secret."""
        secret, pin = (
            base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (self.secret, self.pin)
        )
        return f"{PREFIX}.{self.id}.{secret}.{pin}"

    @property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(_CONTEXT + self.secret).digest())

    def verifier(self) -> bytes:
        """Return what the mesh keeps: 32 bytes of which nothing of the secret can be told."""
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def prove(self, claim: bytes) -> bytes:
        """Return the proof that whoever makes ``claim`` has the token."""
        return self._key.sign(_transcript(self.pin, claim))


def _decoded(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


def _transcript(pin: bytes, claim: bytes) -> bytes:
    """Return what is signed: it holds for one mesh alone."""
    return _CONTEXT + pin + claim


def proves(verifier: bytes, pin: bytes, claim: bytes, proof: bytes) -> bool:
    """Say whether ``proof`` was made for ``claim`` with the token that ``verifier`` is of."""
    try:
        Ed25519PublicKey.from_public_bytes(verifier).verify(proof, _transcript(pin, claim))
    except (InvalidSignature, ValueError):
        return False
    return True


def pin_of(authority: x509.Certificate) -> bytes:
    """Return the SHA-256 of the public key of a CA."""
    key = authority.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).digest()
