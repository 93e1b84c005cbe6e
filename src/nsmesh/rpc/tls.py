"""TLS between two byte queues, on nobody's socket: the wire moves the bytes, and keeps its descriptors."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any

from nsmesh.core.errors import MeshError, Unauthorized, Unavailable
from nsmesh.core.identity import Identity, ShowingContext

RECORD = 16384


class Tls:
    """One side of one TLS connection.

    A peer without a certificate is taken where our context says that certificates are optional; it has no
    ``spiffe_id`` then.
    """

    def __init__(self, identity: Identity, *, server: bool) -> None:
        self._identity = identity
        self._inward = ssl.MemoryBIO()
        self._outward = ssl.MemoryBIO()
        context = identity.server_context() if server else identity.client_context()
        self._tls = context.wrap_bio(self._inward, self._outward, server_side=server)
        self.done = False
        self.certificate = b""
        self.shown = context.shown if isinstance(context, ShowingContext) else b""
        self.spiffe_id = ""

    def handshake(self, where: str) -> bool:
        """Go as far as the bytes allow; return whether it is done.

        Raises Unauthorized when one side refuses the other's certificate, Unavailable for other failures.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise failure(error, where) from error
        if self._tls.selected_alpn_protocol() != "h2":
            raise Unavailable(
                f"{where} does not offer HTTP/2 (ALPN h2)", remedy="both sides must be gRPC peers over TLS"
            )
        chain = _chain(self._tls)
        if chain:
            self.spiffe_id = self._identity.verify(chain)
            self.certificate = chain[0]
        elif self._tls.context.verify_mode is not ssl.CERT_OPTIONAL:
            raise Unauthorized(f"{where} showed no certificate", remedy="give it an identity (SVID)")
        self.done = True
        return True

    def put(self, data: bytes) -> None:
        """Take bytes from the socket."""
        self._inward.write(data)

    def end(self) -> None:
        """Take the end of the socket's bytes."""
        self._inward.write_eof()

    def read(self, where: str) -> tuple[bytes, bool]:
        """Return the plain bytes that are there, and whether the peer has ended; raises MeshError."""
        tls = self._tls
        parts = []
        ended = False
        while True:
            try:
                part = tls.read(RECORD * 4)
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                ended = True
                break
            except ssl.SSLError as error:
                raise failure(error, where) from error
            if not part:
                ended = True
                break
            parts.append(part)
            if not self._inward.pending and not tls.pending():
                break
        return (parts[0] if len(parts) == 1 else b"".join(parts)), ended

    def wrap(self, data: bytes) -> bytes:
        """Return ``data`` as records for the socket; raises Unavailable when the peer has ended TLS."""
        try:
            written = self._tls.write(data)
            while written < len(data):
                written += self._tls.write(memoryview(data)[written:])
        except ssl.SSLError as error:
            raise failure(error, "the peer") from error
        return self._outward.read()

    def take(self) -> bytes:
        """Return what TLS itself has to say: handshake, alerts, tickets."""
        return self._outward.read() if self._outward.pending else b""

    def close(self) -> bytes:
        """Return the records that say goodbye."""
        with contextlib.suppress(ssl.SSLError, ValueError):
            self._tls.unwrap()
        return self.take()


def _chain(tls: ssl.SSLObject) -> list[bytes]:
    """Return the peer's certificates in DER, leaf first."""
    if hasattr(tls, "get_unverified_chain"):  # Python 3.13
        return list(tls.get_unverified_chain() or ())
    inner: Any = tls._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 - before 3.13 there is no public way
    found = inner.get_unverified_chain() or ()  # with a None in it where the peer has shown nothing
    return [certificate.public_bytes(2) for certificate in found if certificate is not None]  # 2: DER


def failure(error: ssl.SSLError, where: str) -> MeshError:
    """Return what a failed handshake means."""
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unauthorized(
            f"the certificate of {where} was refused: {error.verify_message}",
            remedy="check that both sides trust each other's bundle and that the certificate has not expired",
        )
    if "alert" in reason and any(word in reason for word in ("certificate", "unknown ca", "access denied")):
        return Unauthorized(
            f"{where} refused our certificate: {reason}",
            remedy="check that its bundle trusts our trust domain",
        )
    if "peer did not return a certificate" in reason:
        return Unauthorized(f"{where} showed no certificate", remedy="give it an identity (SVID)")
    return Unavailable(f"TLS with {where} failed: {reason}", remedy="check that both sides speak TLS")
