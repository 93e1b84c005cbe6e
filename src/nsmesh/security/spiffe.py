"""SPIFFE IDs and the rules that a leaf certificate must keep before anybody believes its ID.

Each refusal names the rule that was broken (:class:`Rule`), so that whoever issued the certificate knows
what to change.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from nsmesh.core.errors import Invalid, Unauthorized

MAX_ID = 2048
"""Longest SPIFFE ID, bytes."""
MAX_TRUST_DOMAIN = 255
"""Longest trust domain name, bytes."""

_SCHEME = "spiffe://"
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_PATH_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


class Rule(enum.StrEnum):
    """What a leaf certificate must be like (contract 3.7)."""

    READABLE = "readable"
    ONE_URI = "exactly one URI SAN"
    SPIFFE_ID = "the URI is a SPIFFE ID with a path"
    NOT_A_CA = "CA is false"
    KEY_USAGE = "key usage has digitalSignature and neither keyCertSign nor cRLSign"
    P256 = "the key is EC P-256"


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """``spiffe://trust_domain/path``; ``path`` begins with a slash, or is empty for the domain itself."""

    trust_domain: str
    path: str

    def __str__(self) -> str:
        """Return the URI."""
        return f"{_SCHEME}{self.trust_domain}{self.path}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a SPIFFE ID; raises Invalid saying what is wrong with it."""
        if len(text) > MAX_ID:
            raise Invalid(f"a SPIFFE ID of {len(text)} characters is longer than {MAX_ID}")
        if not text.startswith(_SCHEME):
            raise Invalid(f"{text!a} is no SPIFFE ID: it does not begin with {_SCHEME}")
        domain, slash, rest = text.removeprefix(_SCHEME).partition("/")
        check_trust_domain(domain)
        if slash:
            for part in rest.split("/"):
                if part in (".", "..") or not _PATH_SEGMENT.fullmatch(part):
                    raise Invalid(
                        f"{text!a} is no SPIFFE ID: {part!a} is no path segment",
                        remedy="use letters, digits, dots, dashes and underscores, and no empty segment",
                    )
        return cls(domain, slash + rest)


def check_trust_domain(name: str) -> str:
    """Return ``name`` if it can name a trust domain; raises Invalid otherwise."""
    if len(name) > MAX_TRUST_DOMAIN or not _TRUST_DOMAIN.fullmatch(name):
        raise Invalid(
            f"{name[: MAX_TRUST_DOMAIN + 1]!a} is no trust domain",
            remedy="use lower case letters, digits, dots, dashes and underscores",
        )
    return name


def trust_domain_of(text: str) -> str:
    """Return the trust domain of a name with or without ``spiffe://``, as federated bundles are keyed."""
    return check_trust_domain(text.removeprefix(_SCHEME).partition("/")[0])


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf certificate that keeps all rules. Times are seconds since the epoch."""

    id: SpiffeId
    certificate: x509.Certificate
    public_key: ec.EllipticCurvePublicKey
    not_before: float
    not_after: float


def _broken(rule: Rule, subject: str, what: str) -> NoReturn:
    raise Unauthorized(
        f"the certificate of {subject} breaks the rule '{rule}': {what}",
        remedy="have the SVID issued again by a SPIFFE conformant issuer with an EC P-256 key",
    )


@lru_cache(maxsize=1024)
def read_leaf(der: bytes) -> Leaf:
    """Read a leaf (DER) and check every :class:`Rule`; raises Unauthorized that names the broken one.

    Neither signature nor validity in time is looked at here; see :mod:`nsmesh.security.verify`.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        extensions = certificate.extensions
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except Exception as error:  # noqa: BLE001 - the library knows many ways to say that bytes are bent
        _broken(Rule.READABLE, "the peer", f"it cannot be read ({type(error).__name__})")
    identity = _identity(extensions)
    _check_usage(extensions, str(identity))
    try:
        key = certificate.public_key()
    except Exception as error:  # noqa: BLE001 - whatever the library makes of a hostile key is one refusal
        _broken(Rule.P256, str(identity), f"its key cannot be read ({type(error).__name__})")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        _broken(Rule.P256, str(identity), f"it has a key of {_kind(key)}, which cannot sign ES256 tokens")
    return Leaf(
        id=identity,
        certificate=certificate,
        public_key=key,
        not_before=begin.timestamp(),
        not_after=end.timestamp(),
    )


def _kind(key: object) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return type(key).__name__.removesuffix("PublicKey")


def _identity(extensions: x509.Extensions) -> SpiffeId:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        _broken(Rule.ONE_URI, "the peer", "it has no subject alternative name")
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        _broken(Rule.ONE_URI, "the peer", f"it has {len(uris)}")
    try:
        identity = SpiffeId.parse(uris[0])
    except Invalid as error:
        _broken(Rule.SPIFFE_ID, "the peer", error.what)
    if not identity.path:
        _broken(Rule.SPIFFE_ID, str(identity), "it names a whole trust domain")
    return identity


def _check_usage(extensions: x509.Extensions, subject: str) -> None:
    try:
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            _broken(Rule.NOT_A_CA, subject, "it is a CA certificate")
    except x509.ExtensionNotFound:
        pass  # absent means CA is false
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return  # absent means unlimited, and peers of the field take it
    if usage.key_cert_sign or usage.crl_sign:
        _broken(Rule.KEY_USAGE, subject, "it may sign certificates or revocation lists")
    if not usage.digital_signature:
        _broken(Rule.KEY_USAGE, subject, "it may not sign")
