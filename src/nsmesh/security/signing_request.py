"""Certificate signing requests (PKCS#10) for SVIDs, of hosts whose keys never leave them."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import NameOID

from nsmesh.core.errors import Invalid
from nsmesh.security.spiffe import SpiffeId

LARGEST = 8192
"""Bytes of a request that is read."""
_RENEWAL = b"nsmesh renew 1\0"


def make_request(key: ec.EllipticCurvePrivateKey, spiffe_id: str) -> bytes:
    """Return a request (DER) for an SVID of ``spiffe_id``, signed with its key."""
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "nsmesh")])
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(names, critical=False)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def read_request(der: bytes) -> tuple[SpiffeId, ec.EllipticCurvePublicKey]:
    """Return the ID that a request asks for, and its key.

    Raises Invalid unless it is signed with that key, the key is EC P-256, and one URI is asked for.
    """
    wrong = Invalid("the signing request cannot be read", remedy="use the same version of nsmesh")
    if len(der) > LARGEST:
        raise wrong
    try:
        request = x509.load_der_x509_csr(der)
        good = request.is_signature_valid
        key = request.public_key()
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (
        ValueError,
        TypeError,
        InvalidSignature,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
    ) as error:
        raise wrong from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if not good or len(uris) != 1 or len(names) != 1:
        raise wrong
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Invalid("the key of the signing request is no EC P-256 key")
    return SpiffeId.parse(uris[0]), key


def text_of(key: ec.EllipticCurvePublicKey) -> str:
    """Return the public key in hexadecimal DER: what a mesh remembers of a node."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()


def prove_renewal(key: ec.EllipticCurvePrivateKey, claim: bytes) -> bytes:
    """Return the proof that ``claim`` is made by who holds ``key``."""
    return key.sign(_transcript(claim), ec.ECDSA(hashes.SHA256()))


def renews(known: str, claim: bytes, proof: bytes) -> bool:
    """Say whether the key that is remembered as ``known`` made ``proof`` for ``claim``."""
    try:
        key = load_der_public_key(bytes.fromhex(known))
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(proof, _transcript(claim), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        return False
    return True


def _transcript(claim: bytes) -> bytes:
    return _RENEWAL + hashlib.sha256(claim).digest()
