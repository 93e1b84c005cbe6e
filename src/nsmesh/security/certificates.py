"""The certificates that the built-in CA makes: its own, and those of SVIDs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nsmesh.security.authority_files import Authority
from nsmesh.security.spiffe import SpiffeId

BACKDATE = 60.0
"""Seconds by which certificates begin in the past: clocks differ."""
_ORGANIZATION = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "nsmesh")


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(seconds), tz=dt.UTC)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _begun(
    names: tuple[x509.Name, x509.Name],
    key: ec.EllipticCurvePublicKey,
    serial: int,
    validity: tuple[float, dt.datetime],
    *,
    ca: bool,
) -> x509.CertificateBuilder:
    """Return the beginning of a certificate; ``names``: subject and issuer, ``validity``: now and its end."""
    subject, issuer = names
    now, end = validity
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(_time(now - BACKDATE))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(_usage(ca=ca), critical=True)
    )


def begin_authority(key: ec.EllipticCurvePublicKey, now: float, lifetime: float) -> x509.CertificateBuilder:
    """Return the certificate of an authority for ``key``, valid for ``lifetime`` s from ``now``, to sign."""
    serial = x509.random_serial_number()
    # each authority has a name of its own, so that a verifier need not try the keys of its siblings
    name = x509.Name([_ORGANIZATION, x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:x}")])
    return _begun((name, name), key, serial, (now, _time(now + lifetime)), ca=True).add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key), critical=False
    )


def begin_leaf(
    authority: x509.Certificate,
    key: ec.EllipticCurvePublicKey,
    validity: tuple[float, float],
    usages: Iterable[x509.ObjectIdentifier],
    names: Iterable[x509.GeneralName],
) -> x509.CertificateBuilder:
    """Return a certificate for ``key`` and ``names``, for the key of ``authority`` to sign.

    ``validity``: now (wall time) and seconds of life; it does not live longer than its authority.
    """
    now, ttl = validity
    end = min(_time(now + ttl), authority.not_valid_after_utc)
    subject = x509.Name([_ORGANIZATION])
    signer = authority.public_key()
    if not isinstance(signer, ec.EllipticCurvePublicKey):
        raise TypeError("the key of an authority is EC")
    return (
        _begun((subject, authority.subject), key, x509.random_serial_number(), (now, end), ca=False)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )


def make_authority(trust_domain: str, number: int, now: float, lifetime: float) -> Authority:
    """Return a new authority with keys of its own, valid for ``lifetime`` seconds from wall time ``now``."""
    key = ec.generate_private_key(ec.SECP256R1())
    identity = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")])
    begun = begin_authority(key.public_key(), now, lifetime).add_extension(identity, critical=False)
    return Authority(number, begun.sign(key, hashes.SHA256()), key, ec.generate_private_key(ec.SECP256R1()))


def make_leaf(
    authority: Authority,
    identity: SpiffeId,
    key: ec.EllipticCurvePublicKey,
    validity: tuple[float, float],
    dns_names: tuple[str, ...],
) -> x509.Certificate:
    """Return the certificate of an SVID for ``key``; ``validity``: now (wall time) and seconds of life."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(identity))]
    names += [x509.DNSName(name) for name in dns_names]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    leaf = begin_leaf(authority.certificate, key, validity, usages, names)
    return leaf.sign(authority.key, hashes.SHA256())
