"""Verifies that a certificate chain leads to the bundle of the trust domain that its leaf names.

The walk is made here, because the X.509 verifiers at hand want a DNS name or accept any of several
authorities: neither binds a bundle to a trust domain. What is checked of every certificate on the way, as
RFC 5280 section 6 has it:

* the leaf keeps the rules of :mod:`nsmesh.security.spiffe`;
* now lies between notBefore and notAfter, of the authority in the bundle too;
* the issuer's subject is the issuer's name in the certificate, and its key made the signature, with no hash
  older than SHA-2;
* an issuer is a CA, its path length is not exceeded, and its key usage, where given, has keyCertSign;
* no certificate has a critical extension that is not looked at here. Name constraints are among those, and
  are refused even where they are not critical: to overlook one would be to trust too much.

Revocation is not looked at: SVIDs are short-lived instead. Extended key usage and host names carry no
meaning for SPIFFE.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from nsmesh.core.errors import Invalid, Unauthorized
from nsmesh.security.spiffe import Leaf, check_trust_domain, read_leaf

MAX_CHAIN = 8
"""Certificates between leaf and authority, both included."""
_MAX_STEPS = 64
"""Signatures tried for one chain: hostile chains cost a bounded time."""
_CACHE = 1024

_KNOWN_CRITICAL = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """The authorities (CA certificates) of one trust domain; several while they are rotated."""

    trust_domain: str
    authorities: tuple[x509.Certificate, ...]
    fingerprint: bytes = field(init=False, compare=False, default=b"")

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        digest = hashlib.sha256(self.trust_domain.encode() + b"\0" + self.der()).digest()
        object.__setattr__(self, "fingerprint", digest)

    def der(self) -> bytes:
        """Return the authorities as concatenated DER, as the Workload API gives them."""
        return b"".join(authority.public_bytes(Encoding.DER) for authority in self.authorities)

    @classmethod
    def from_der(cls, trust_domain: str, der: bytes) -> Bundle:
        """Read concatenated DER; raises Invalid for anything else."""
        return cls(trust_domain, tuple(load_certificates(der)))

    @classmethod
    def from_pem(cls, trust_domain: str, pem: bytes) -> Bundle:
        """Read a PEM file's content; raises Invalid for anything else."""
        try:
            return cls(trust_domain, tuple(x509.load_pem_x509_certificates(pem)))
        except ValueError as error:
            raise Invalid(f"the bundle of trust domain {trust_domain} is not PEM: {error}") from error


def load_certificates(der: bytes) -> list[x509.Certificate]:
    """Split concatenated DER certificates; raises Invalid where a certificate cannot be read."""
    found = []
    rest = memoryview(der)
    while rest:
        size = _der_size(rest)
        try:
            found.append(x509.load_der_x509_certificate(bytes(rest[:size])))
        except Exception as error:
            raise Invalid(f"certificate {len(found)} of a chain or bundle cannot be read: {error}") from error
        rest = rest[size:]
    return found


def _der_size(data: memoryview) -> int:
    """Return the size of the DER element at the start: tag, length and content."""
    if len(data) < 2 or data[0] != 0x30:
        raise Invalid("a chain or bundle is not made of DER certificates")
    first = data[1]
    if first < 0x80:
        size = 2 + first
    else:
        count = first & 0x7F
        if not 1 <= count <= 4 or len(data) < 2 + count:
            raise Invalid("a chain or bundle has a certificate with a broken length")
        size = 2 + count + int.from_bytes(data[2 : 2 + count], "big")
    if size > len(data):
        raise Invalid("a chain or bundle ends in the middle of a certificate")
    return size


@dataclass(slots=True)
class _Walk:
    """One search from a leaf to a bundle. ``why`` is the most telling reason so far why it failed."""

    bundle: Bundle
    intermediates: Sequence[x509.Certificate]
    now: float
    steps: int = 0
    why: str = "no authority of the bundle has the issuer's name"

    def until(self, certificate: x509.Certificate, depth: int, used: frozenset[int]) -> float | None:
        """Return how long a chain from ``certificate`` to the bundle is valid, or None without one."""
        own_end = _end(certificate)
        for authority in self.bundle.authorities:
            if self._issued(certificate, authority, depth):
                return min(own_end, _end(authority))
        if depth + 2 >= MAX_CHAIN:
            self.why = f"the chain is longer than {MAX_CHAIN} certificates"
            return None
        for position, issuer in enumerate(self.intermediates):
            if position in used or not self._issued(certificate, issuer, depth):
                continue
            found = self.until(issuer, depth + 1, used | {position})
            if found is not None:
                return min(own_end, found)
        return None

    def _issued(self, certificate: x509.Certificate, issuer: x509.Certificate, below: int) -> bool:
        """Whether ``issuer`` made ``certificate``, which has ``below`` CA certificates below itself."""
        if issuer.subject != certificate.issuer:
            return False
        self.steps += 1
        if self.steps > _MAX_STEPS:
            self.why = "too many certificates with the same names"
            return False
        trouble = _issuer_trouble(issuer, below, self.now)
        if trouble is None:
            trouble = _signature_trouble(certificate, issuer)
        if trouble is not None:
            self.why = trouble
        return trouble is None


def _end(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()


def _time_trouble(certificate: x509.Certificate, whose: str, now: float) -> str | None:
    if now < certificate.not_valid_before_utc.timestamp():
        return f"{whose} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC"
    if now > _end(certificate):
        return f"{whose} expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC"
    return None


def _extension_trouble(extensions: x509.Extensions, whose: str) -> str | None:
    for extension in extensions:
        if extension.oid == ExtensionOID.NAME_CONSTRAINTS:
            return f"{whose} has name constraints, which are not supported"
        if extension.critical and extension.oid not in _KNOWN_CRITICAL:
            return f"{whose} has the critical extension {extension.oid.dotted_string}, which is not known"
    return None


def _issuer_trouble(issuer: x509.Certificate, below: int, now: float) -> str | None:
    try:
        extensions = issuer.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return "an issuer in the chain is no CA"
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return "an issuer in the chain has extensions that cannot be read"
    if not constraints.ca:
        return "an issuer in the chain is no CA"
    if constraints.path_length is not None and below > constraints.path_length:
        return "the path length of a CA in the chain is exceeded"
    try:
        if not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            return "an issuer in the chain may not sign certificates"
    except x509.ExtensionNotFound:
        pass
    return _extension_trouble(extensions, "an issuer in the chain") or _time_trouble(
        issuer, "an issuer in the chain", now
    )


def _signature_trouble(certificate: x509.Certificate, issuer: x509.Certificate) -> str | None:
    try:
        algorithm = certificate.signature_hash_algorithm
        if algorithm is not None and algorithm.name in ("md5", "sha1"):
            return f"the signature uses {algorithm.name}, which is broken"
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return "the signature was not made by the authority of that name"
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return f"the signature cannot be checked ({error})"
    return None


def verify_chain(chain: Sequence[bytes], bundles: Mapping[str, Bundle], now: float) -> tuple[Leaf, float]:
    """Verify a DER chain, leaf first; returns the leaf, and until when the chain is valid.

    Raises Unauthorized that says which rule or certificate is at fault.
    """
    if not chain:
        raise Unauthorized("the peer showed no certificate", remedy="give it an SVID")
    leaf = read_leaf(chain[0])
    bundle = bundles.get(leaf.id.trust_domain)
    if bundle is None:
        raise Unauthorized(
            f"{leaf.id} is of the trust domain {leaf.id.trust_domain}, for which there is no bundle",
            remedy=f"federate with it; known: {', '.join(sorted(bundles)) or 'none'}",
        )
    own = _time_trouble(leaf.certificate, "it", now) or _extension_trouble(leaf.certificate.extensions, "it")
    if own is not None:
        raise Unauthorized(f"the certificate of {leaf.id} is refused: {own}", remedy="renew its SVID")
    try:
        intermediates = [x509.load_der_x509_certificate(der) for der in chain[1:MAX_CHAIN]]
        walk = _Walk(bundle, intermediates, now)
        until = walk.until(leaf.certificate, 0, frozenset())
    except Exception as error:  # the library reads parts of hostile certificates late
        raise Unauthorized(f"the chain of {leaf.id} has a certificate that cannot be read") from error
    if until is None:
        raise Unauthorized(
            f"the certificate of {leaf.id} does not lead to the bundle of {bundle.trust_domain}: {walk.why}",
            remedy="check that both sides use the same authority, and that its bundle is current",
        )
    return leaf, until


class Verifier:
    """Verifies chains, and remembers each leaf that did verify until the chain's end."""

    def __init__(self) -> None:
        self._good: dict[tuple[bytes, bytes], tuple[Leaf, float, float]] = {}

    def verify(self, chain: Sequence[bytes], bundles: Mapping[str, Bundle], now: float) -> Leaf:
        """Return the leaf of a chain that verifies at wall time ``now``; raises Unauthorized otherwise."""
        if chain:
            bundle = bundles.get(read_leaf(chain[0]).id.trust_domain)
            known = self._good.get((chain[0], bundle.fingerprint)) if bundle else None
            if known is not None and known[1] <= now <= known[2]:
                return known[0]
        leaf, until = verify_chain(chain, bundles, now)
        if len(self._good) >= _CACHE:
            del self._good[next(iter(self._good))]
        self._good[chain[0], bundles[leaf.id.trust_domain].fingerprint] = (leaf, now, until)
        return leaf
