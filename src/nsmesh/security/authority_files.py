"""The files of the built-in CA: one per authority, with its certificate and both its keys.

A file is written under another name and renamed, so that a crash leaves the old or the new one; it is
readable by its owner alone; with a passphrase its keys are encrypted.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from nsmesh.core.errors import Invalid, NotFound, Refused

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\n.*?-----END \1-----\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Authority:
    """One CA of a trust domain: its certificate, its key, and the key that signs its JWT-SVIDs."""

    number: int
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    jwt_key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def key_id(self) -> str:
        """The ``kid`` of its JWT-SVIDs."""
        return f"{self.certificate.serial_number:x}"


def write_private(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` at once, mode 0600."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_private(path: Path) -> bytes:
    """Return the content of ``path``.

    Raises NotFound where it is missing, and Refused where others than its owner may read or write it.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            mode = stat.S_IMODE(status.st_mode)
            if mode & 0o077:
                raise Refused(
                    f"the CA file {path} has mode {mode:04o}: others may read or write it",
                    remedy=f"chmod 600 {path}, and begin a new CA if others may have read it",
                )
            if status.st_uid not in (os.geteuid(), 0):
                raise Refused(
                    f"the CA file {path} belongs to uid {status.st_uid}",
                    remedy=f"chown it to uid {os.geteuid()}",
                )
            return file.read()
    except FileNotFoundError as error:
        raise NotFound(
            f"the CA file {path} is missing",
            remedy="restore it from a backup, or remove the whole folder to begin a new CA",
        ) from error
    except PermissionError as error:
        raise Refused(f"the CA file {path} cannot be opened by uid {os.geteuid()}") from error


def save(path: Path, authority: Authority, passphrase: bytes | None) -> None:
    """Write one authority; the keys are encrypted when there is a passphrase."""
    encryption: KeySerializationEncryption = (
        BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    )
    keys = (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        for key in (authority.key, authority.jwt_key)
    )
    write_private(path, authority.certificate.public_bytes(Encoding.PEM) + b"".join(keys))


def _damaged(path: Path, why: str) -> Invalid:
    return Invalid(
        f"the CA file {path} is damaged: {why}",
        remedy="restore it from a backup, or remove the whole folder to begin a new CA",
    )


def encrypted(path: Path) -> bool:
    """Whether the keys of an authority's file are encrypted."""
    return b"ENCRYPTED" in read_private(path)


def load(path: Path, number: int, passphrase: bytes | None) -> Authority:
    """Read one authority back.

    Raises NotFound, Refused (permissions, passphrase) or Invalid (damage), each saying what to do.
    """
    blocks = [match.group(0) for match in _BLOCK.finditer(read_private(path))]
    if len(blocks) != 3:
        raise _damaged(path, f"it has {len(blocks)} PEM blocks, not a certificate and two keys")
    try:
        certificate = x509.load_pem_x509_certificate(blocks[0])
    except ValueError as error:
        raise _damaged(path, "its certificate cannot be read") from error
    key, jwt_key = (_load_key(path, block, passphrase) for block in blocks[1:])
    if key.public_key() != certificate.public_key():
        raise _damaged(path, "its key does not belong to its certificate")
    return Authority(number, certificate, key, jwt_key)


def _load_key(path: Path, block: bytes, passphrase: bytes | None) -> ec.EllipticCurvePrivateKey:
    encrypted = b"ENCRYPTED" in block
    if encrypted and not passphrase:
        raise Refused(f"the keys in {path} are encrypted", remedy="give the passphrase or key file")
    try:
        key = load_pem_private_key(block, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise Refused(
                f"the keys in {path} do not open with this passphrase", remedy="give the right one"
            ) from error
        raise _damaged(path, "a key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _damaged(path, "a key is not an EC key")
    return key
