"""TLS contexts made of an SVID and bundles, without a key in any file on disk."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from nsmesh.core.errors import Invalid
from nsmesh.core.identity import ShowingContext
from nsmesh.security.verify import Bundle

ALPN = ["h2"]


@contextmanager
def unnamed_file(content: bytes) -> Iterator[str]:
    """Yield a path to ``content`` that exists in memory alone: a memfd, or else an unlinked private file."""
    try:
        descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
        return
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def make_context(*, server: bool, pem: bytes, leaf: bytes, bundles: Iterable[Bundle]) -> ShowingContext:
    """Return a context that shows the chain and key of ``pem``, and demands a certificate of the peer.

    TLS 1.2 at least, ALPN ``h2``, no tickets: a resumed session would not show the peer's certificate
    again. OpenSSL checks the peer against the union of all bundles, without a host name; whether the bundle
    is that of the leaf's own trust domain is the business of ``Identity.verify`` after the handshake.
    Raises Invalid when chain and key do not belong together.
    """
    context = ShowingContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.shown = leaf
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # a bundle may hold an authority that is not self-signed; it is an anchor all the same
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if server:
        context.num_tickets = 0
    context.set_alpn_protocols(ALPN)
    anchors = b"".join(bundle.der() for bundle in bundles)
    if anchors:
        context.load_verify_locations(cadata=anchors)
    with unnamed_file(pem) as path:
        try:
            context.load_cert_chain(path)
        except ssl.SSLError as error:
            raise Invalid(
                f"the SVID cannot be used for TLS: {error.reason or error}",
                remedy="its key must belong to its first certificate",
            ) from error
    return context
