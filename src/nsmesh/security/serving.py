"""Certificates of a server that is known by DNS names, and the authorities that sign them.

For a server whose callers are told which authorities to trust: an admission webhook. An authority is replaced
long before it ends, in three steps, so that no caller meets a certificate whose authority it does not know:
a new one is *prepared* (trusted, signs nothing), *activated* (signs), and the former one *retired* when
nothing of it is valid any more. All of it is pure: what is due is worked out from the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from nsmesh.core.errors import Invalid
from nsmesh.security.certificates import BACKDATE, begin_authority, begin_leaf

PREPARE, ACTIVATE = 0.5, 0.75
"""Parts of an authority's life after which its successor is prepared, and signs."""
_SIGNER, _NEXT, _FORMER, _SINCE = "signer.pem", "next.pem", "former.pem", "since"


@dataclass(frozen=True, slots=True)
class Signer:
    """One authority: its certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def end(self) -> float:
        """Wall time at which it ends, seconds since the epoch."""
        return self.certificate.not_valid_after_utc.timestamp()

    def age(self, now: float) -> float:
        """Return which part of its life is over."""
        begin = self.certificate.not_valid_before_utc.timestamp() + BACKDATE
        return (now - begin) / (self.end - begin)


@dataclass(frozen=True, slots=True)
class Authorities:
    """Who signs (since wall time ``since``), who will, and who did."""

    signer: Signer
    since: float
    next: Signer | None = None
    former: x509.Certificate | None = None

    @property
    def bundle(self) -> tuple[x509.Certificate, ...]:
        """What callers shall trust."""
        following = (self.next.certificate,) if self.next else ()
        former = (self.former,) if self.former else ()
        return (*former, self.signer.certificate, *following)

    @property
    def pem(self) -> str:
        """The bundle as text."""
        return "".join(map(pem_of, self.bundle))


def due(held: Authorities | None, now: float, lifetime: float, ttl: float, trusted: str) -> Authorities:
    """Return the authorities after the step that is due at wall time ``now``; ``held`` where none is.

    ``lifetime``: seconds that a new authority lives. ``ttl``: the longest life of what it signs. ``trusted``:
    the bundle (PEM) that callers know now; nobody signs who is not in it.
    """
    if held is None or now >= held.signer.end:
        return Authorities(make_signer(now, lifetime), now)
    age = held.signer.age(now)
    following = held.next
    if following is None:
        if age >= PREPARE:
            return replace(held, next=make_signer(now, lifetime))
    elif age >= ACTIVATE and pem_of(following.certificate) in trusted:
        return Authorities(following, now, former=held.signer.certificate)
    if held.former is not None and now >= held.since + ttl:
        return replace(held, former=None)
    return held


def pem_of(certificate: x509.Certificate) -> str:
    """Return a certificate as text."""
    return certificate.public_bytes(Encoding.PEM).decode()


def make_signer(now: float, lifetime: float) -> Signer:
    """Return a new authority that lives ``lifetime`` seconds from wall time ``now``."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Signer(begin_authority(key.public_key(), now, lifetime).sign(key, hashes.SHA256()), key)


def issue(signer: Signer, dns_names: Sequence[str], now: float, ttl: float) -> tuple[bytes, float]:
    """Return a new key with its certificate as PEM, and the wall time of its end.

    It lives for ``ttl`` seconds from wall time ``now``, and not longer than its authority.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(one) for one in dns_names]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH]
    begun = begin_leaf(signer.certificate, key.public_key(), (now, ttl), usages, names)
    certificate = begun.sign(signer.key, hashes.SHA256())
    return certificate.public_bytes(Encoding.PEM) + _key(key), min(now + ttl, signer.end)


def dump(held: Authorities) -> dict[str, bytes]:
    """Return the authorities as the named files of a Secret."""
    files = {_SIGNER: _both(held.signer), _SINCE: f"{held.since:.3f}".encode()}
    if held.next is not None:
        files[_NEXT] = _both(held.next)
    if held.former is not None:
        files[_FORMER] = held.former.public_bytes(Encoding.PEM)
    return files


def load(files: Mapping[str, bytes]) -> Authorities:
    """Return the authorities that :func:`dump` wrote; raises Invalid for anything else."""
    try:
        return Authorities(
            signer=_signer(files[_SIGNER]),
            since=float(files[_SINCE]),
            next=_signer(files[_NEXT]) if _NEXT in files else None,
            former=x509.load_pem_x509_certificate(files[_FORMER]) if _FORMER in files else None,
        )
    except (KeyError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(f"these are no authorities: {error!r}") from error


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _both(signer: Signer) -> bytes:
    return signer.certificate.public_bytes(Encoding.PEM) + _key(signer.key)


def _signer(pem: bytes) -> Signer:
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the key is no EC key")
    certificate = x509.load_pem_x509_certificate(pem)
    if certificate.public_key() != key.public_key():
        raise ValueError("key and certificate do not belong together")
    return Signer(certificate, key)
