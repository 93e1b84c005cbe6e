"""Identities of the mesh port: how a host that has none yet knows whom it speaks with, and the other side."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from nsmesh.core.clock import Clock
from nsmesh.core.errors import Internal, MeshError, Refused, Unauthorized
from nsmesh.security.ca import TTL, CertificateAuthority
from nsmesh.security.contexts import ALPN
from nsmesh.security.join_token import pin_of
from nsmesh.security.spiffe import Leaf, read_leaf
from nsmesh.security.svid import Svid, SvidSource
from nsmesh.security.verify import Bundle, verify_chain
from nsmesh.standalone.joining.names import first_id


def _never(listener: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG001 - the face asks for it
    return lambda: None


class Pinned:
    """Shows nothing, and takes nobody but the first host of the mesh whose CA has one of ``pins``.

    Nothing is said to the other side before :meth:`verify` has returned.
    """

    def __init__(self, pins: Sequence[bytes], where: str, clock: Clock) -> None:
        self._pins = pins
        self._where = where
        self._clock = clock
        self.trust_domain = ""
        self.on_rotation = _never

    @property
    def spiffe_id(self) -> str:
        """Nobody: raises Internal."""
        raise Internal("a host that joins has no identity yet")

    def client_context(self) -> ssl.SSLContext:
        """Return a context that leaves the check of the certificates to :meth:`verify`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(ALPN)
        return context

    def server_context(self) -> ssl.SSLContext:
        """Nobody is served with it: raises Internal."""
        raise Internal("a host that joins serves nobody yet")

    def verify(self, chain: list[bytes]) -> str:
        """Return the SPIFFE ID of the first host; raises Unauthorized or Refused for anybody else."""
        leaf = read_leaf(chain[0])
        domain = leaf.id.trust_domain
        try:
            above = [x509.load_der_x509_certificate(der) for der in chain[1:]]
        except ValueError as error:
            raise self._another() from error
        if not above:
            raise Refused(
                f"{self._where} is no mesh port: {leaf.id} answers there",
                remedy="join at the address that nsm up --listen was given, and nsm token create says",
            )
        known = [one for one in above if pin_of(one) in self._pins]
        if not known or str(leaf.id) != first_id(domain):
            raise self._another()
        self._check_time(leaf)
        verify_chain(chain[:1], {domain: Bundle(domain, tuple(known))}, self._clock.now())
        self.trust_domain = domain
        return str(leaf.id)

    def _another(self) -> MeshError:
        return Unauthorized(
            f"{self._where} is of another mesh than the token: its CA has another key",
            remedy="join at the address that nsm token create said, with the token that it printed",
        )

    def _check_time(self, leaf: Leaf) -> None:
        now = self._clock.now()
        if not leaf.not_before <= now <= leaf.not_after:
            begin, end, here = (_words(moment) for moment in (leaf.not_before, leaf.not_after, now))
            raise Refused(
                f"the clocks of the two hosts differ: the certificate of {self._where} is valid "
                f"from {begin} to {end}, and here it is {here}",
                remedy="set both clocks, by NTP for example",
            )


def _words(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")


class PortIdentity:
    """What the mesh port shows: an SVID of the first host with its authorities behind it.

    Of callers a certificate is not demanded; one that is shown must be good.
    """

    def __init__(self, authority: CertificateAuthority, clock: Clock) -> None:
        self._authority = authority
        self._source = SvidSource(clock=clock)
        self._clock = clock
        self._good = (0.0, 0.0)
        self.on_rotation = _never

    @property
    def spiffe_id(self) -> str:
        """The first host."""
        return first_id(self._authority.trust_domain)

    def _current(self) -> SvidSource:
        now = self._clock.now()
        bundle = self._authority.bundle()
        begin, renew = self._good
        if not begin <= now < renew or self._source.bundles.get(bundle.trust_domain) != bundle:
            leaf = self._authority.issue(self.spiffe_id, TTL)
            above = (one.public_bytes(Encoding.DER) for one in bundle.authorities)
            self._source.update(Svid((*leaf.chain, *above), leaf.key), [bundle])
            self._good = (leaf.not_before, now + TTL / 2)
        return self._source

    def client_context(self) -> ssl.SSLContext:
        """Return the context for calls that we make."""
        return self._current().client_context()

    def server_context(self) -> ssl.SSLContext:
        """Return the context for calls that we take."""
        context = self._current().server_context()
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def verify(self, chain: list[bytes]) -> str:
        """Return the peer's SPIFFE ID; raises Unauthorized."""
        return self._current().verify(chain)
