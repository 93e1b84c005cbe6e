"""Certificates of every make, good and bad, for the tests of this folder."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = 1_700_000_000.0
TRACES = Path(__file__).parents[2] / "data" / "traces"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(**bits: bool) -> x509.KeyUsage:
    every = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**{**every, **bits})


@dataclass
class Made:
    """A certificate with its key, which can issue others."""

    certificate: x509.Certificate
    key: Any = field(repr=False)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def forge(
    subject: str,
    uris: tuple[str, ...] = (),
    *,
    issuer: Made | None = None,
    ca: bool | None = False,
    path_length: int | None = None,
    key: Any = None,
    key_usage: x509.KeyUsage | None = None,
    life: tuple[float, float] = (NOW - 60, NOW + 3600),
    dns: tuple[str, ...] = (),
    extra: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    signer: Any = None,
    algorithm: Any = None,
) -> Made:
    """Make a certificate exactly as told; self-signed without ``issuer``; ``ca`` None leaves it out."""
    key = key or new_key()
    start, end = (dt.datetime.fromtimestamp(when, tz=dt.UTC) for when in life)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer.certificate.subject if issuer else name(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    names = [x509.UniformResourceIdentifier(uri) for uri in uris] + [x509.DNSName(one) for one in dns]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if key_usage is not None:
        builder = builder.add_extension(key_usage, critical=True)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical=critical)
    signing = signer or (issuer.key if issuer else key)
    return Made(builder.sign(signing, algorithm or hashes.SHA256()), key)


def trace(file: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return header and events of a recorded conversation."""
    with (TRACES / f"{file}.jsonl").open() as lines:
        header, *events = (json.loads(line) for line in lines)
    return header, events


@dataclass
class Workshop:
    """All of the above, for tests that ask for it by name."""

    now: float = NOW
    made: type[Made] = Made
    forge = staticmethod(forge)
    new_key = staticmethod(new_key)
    usage = staticmethod(usage)
    trace = staticmethod(trace)


@pytest.fixture
def shop() -> Workshop:
    return Workshop()


@pytest.fixture
def root() -> Made:
    return forge("root", ("spiffe://test.nsm",), ca=True, key_usage=usage(key_cert_sign=True, crl_sign=True))


@pytest.fixture
def leaf(root: Made) -> Made:
    return forge("leaf", ("spiffe://test.nsm/nsc",), issuer=root, key_usage=usage(digital_signature=True))
