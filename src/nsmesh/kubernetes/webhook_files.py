"""Certificates of an admission webhook that others give: files, read again when they change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog
from cryptography import x509

from nsmesh.core.errors import Invalid

log = structlog.get_logger()


class FileCertificate:
    """A certificate with its key, and who signed it, in files of PEM.

    A set that cannot be used is told once, and the one before it stays: the files of a set may be replaced
    one after the other.
    """

    def __init__(self, certificate: str, key: str, authorities: str, show: Callable[[bytes], None]) -> None:
        self._certificate = Path(certificate)
        self._key = Path(key)
        self._authorities = Path(authorities) if authorities else None
        self._show = show
        self._shown = b""
        self._bundle = ""
        self._refused = ""
        self.end = 0.0
        """Wall time at which the certificate that is shown ends; 0: none is."""

    async def bundle(self, trusted: str, *, leads: bool) -> str:  # noqa: ARG002 - the face
        """Return the authorities; raises Invalid where they cannot be used."""
        if self._authorities is None:
            raise Invalid(
                "nobody is told who signs the webhook's certificate",
                remedy="name the file of its authorities with NSM_CA_BUNDLE_FILE_PATH",
            )
        try:
            text = self._authorities.read_text(encoding="ascii")
            x509.load_pem_x509_certificates(text.encode())
        except (OSError, ValueError) as error:
            raise Invalid(
                f"the authorities in {self._authorities} cannot be used: {error}", remedy="give them as PEM"
            ) from error
        return text

    def follow(self, trusted: str = "") -> str:  # noqa: ARG002 - the face
        """Read the files where they changed; return why there is no certificate, or nothing."""
        try:
            found = self._certificate.read_bytes() + b"\n" + self._key.read_bytes()
            if found != self._shown:
                end = x509.load_pem_x509_certificate(found).not_valid_after_utc.timestamp()
                self._show(found)
                self._shown, self.end, self._refused = found, end, ""
                log.info("certificate read", file=str(self._certificate))
        except (OSError, ValueError, Invalid) as error:
            if str(error) != self._refused:
                self._refused = str(error)
                log.warning("a certificate cannot be used", file=str(self._certificate), error=str(error))
        return "" if self._shown else f"no certificate yet: {self._refused}"
