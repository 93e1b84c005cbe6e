"""The SVID that a process holds: its chain, key and bundles, replaced as a whole when they rotate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from nsmesh.core.clock import Clock, SystemClock
from nsmesh.core.errors import Invalid, Unauthorized, Unavailable
from nsmesh.security.contexts import make_context
from nsmesh.security.spiffe import Leaf, read_leaf
from nsmesh.security.verify import Bundle, Verifier, load_certificates

log = structlog.get_logger()

_FORMER = 4
"""SVIDs before the current one that are kept until they end."""


@dataclass(frozen=True, slots=True)
class Svid:
    """An X509-SVID: certificates leaf first (DER), and the leaf's private key, EC P-256."""

    chain: tuple[bytes, ...]
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    leaf: Leaf = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.chain:
            raise Invalid("an SVID without a certificate", remedy="ask the issuer for a whole one")
        try:
            leaf = read_leaf(self.chain[0])
        except Unauthorized as error:
            raise Invalid(f"our own SVID is refused: {error.what}", remedy=error.remedy) from error
        if self.key.public_key().public_numbers() != leaf.public_key.public_numbers():
            raise Invalid(f"the key of the SVID {leaf.id} does not belong to its certificate")
        object.__setattr__(self, "leaf", leaf)

    @property
    def spiffe_id(self) -> str:
        """The SPIFFE ID of the leaf."""
        return str(self.leaf.id)

    @property
    def not_before(self) -> float:
        """Wall time from which the leaf is valid."""
        return self.leaf.not_before

    @property
    def not_after(self) -> float:
        """Wall time at which the leaf ends."""
        return self.leaf.not_after

    @classmethod
    def from_der(cls, chain: bytes, key: bytes) -> Self:
        """Read what the Workload API gives: concatenated certificates and a PKCS#8 key; raises Invalid."""
        return cls(
            tuple(certificate.public_bytes(Encoding.DER) for certificate in load_certificates(chain)),
            read_key(key),
        )

    def key_der(self) -> bytes:
        """Return the private key as PKCS#8 DER, not encrypted."""
        return self.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    def pem(self) -> bytes:
        """Return the private key and the chain as PEM. Keep it in memory."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain = (
            x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)
            for certificate in self.chain
        )
        return key + b"".join(chain)


def read_key(der: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a PKCS#8 DER key; raises Invalid unless it is EC P-256."""
    try:
        key = load_der_private_key(der, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(f"the key of an SVID cannot be read: {type(error).__name__}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Invalid(
            f"the key of an SVID is {type(key).__name__}, and ES256 tokens need EC P-256",
            remedy="set the issuer's key type for workloads to EC P-256",
        )
    return key


class SvidSource:
    """Holds the current SVID and bundles; implements :class:`nsmesh.core.identity.Identity`.

    :meth:`update` replaces all of it at once, by whoever fetches or issues. Contexts are made when they are
    first asked for and made anew after a rotation, so that new connections show the new SVID. ``refuses``
    says why a peer whose certificate is good is refused all the same, or nothing.
    """

    def __init__(
        self, svid: Svid | None = None, bundles: Iterable[Bundle] = (), *, clock: Clock | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._verifier = Verifier()
        self._ready = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._svid: Svid | None = None
        self._former: tuple[Svid, ...] = ()
        self._bundles: Mapping[str, Bundle] = MappingProxyType({})
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self.refuses: Callable[[Leaf], str] = lambda _leaf: ""
        if svid is not None:
            self.update(svid, bundles)

    @property
    def svid(self) -> Svid:
        """The current SVID; raises Unavailable before the first one came."""
        if self._svid is None:
            raise Unavailable("this process has no SVID yet", remedy="see that the Workload API answers")
        return self._svid

    @property
    def rotated(self) -> bool:
        """Whether an SVID that we had before has not ended yet: connections may still show it."""
        if self._former:
            now = self._clock.now()
            self._former = tuple(one for one in self._former if one.not_after > now)
        return bool(self._former)

    def showing(self, leaf: bytes) -> Svid:
        """Return the SVID, current or former, whose leaf (DER) is ``leaf``; the current one for any other."""
        current = self.svid
        if leaf and leaf != current.chain[0]:
            return next((one for one in self._former if one.chain[0] == leaf), current)
        return current

    @property
    def bundles(self) -> Mapping[str, Bundle]:
        """The bundles, by trust domain."""
        return self._bundles

    @property
    def spiffe_id(self) -> str:
        """Our own SPIFFE ID; raises Unavailable before the first SVID came."""
        return self.svid.spiffe_id

    async def wait(self) -> Svid:
        """Wait for the first SVID, and return the current one."""
        await self._ready.wait()
        return self.svid

    def update(self, svid: Svid, bundles: Iterable[Bundle]) -> None:
        """Take a new SVID and all bundles that are trusted from now on, then tell the listeners."""
        if self._svid is not None and self._svid.chain != svid.chain:
            self._former = (self._svid, *self._former)[:_FORMER]
        self._svid = svid
        self._bundles = MappingProxyType({bundle.trust_domain: bundle for bundle in bundles})
        self._contexts = {}
        self._ready.set()
        for listener in tuple(self._listeners):
            try:
                listener()
            except Exception:  # one listener's trouble is not that of the next
                log.exception("a listener failed at the rotation of the SVID", spiffe_id=svid.spiffe_id)

    def vouched(self, spiffe_id: str, bundles: Iterable[Bundle]) -> bool:
        """Say whether we hold an SVID of that ID that ``bundles`` vouch for now."""
        if self._svid is None or self._svid.spiffe_id != spiffe_id:
            return False
        known = {bundle.trust_domain: bundle for bundle in bundles}
        try:
            Verifier().verify(list(self._svid.chain), known, self._clock.now())
        except Unauthorized:
            return False
        return True

    def trust(self, bundles: Iterable[Bundle]) -> None:
        """Keep the SVID, and trust ``bundles`` from now on; nothing happens where they are the same."""
        new = {bundle.trust_domain: bundle for bundle in bundles}
        if {name: one.der() for name, one in new.items()} != {
            name: one.der() for name, one in self._bundles.items()
        }:
            self.update(self.svid, new.values())

    def on_rotation(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each :meth:`update`; returns what takes that back."""
        self._listeners.append(listener)

        def forget() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return forget

    def client_context(self) -> ssl.SSLContext:
        """Return the context for calls that we make."""
        return self._context(server=False)

    def server_context(self) -> ssl.SSLContext:
        """Return the context for calls that we take."""
        return self._context(server=True)

    def _context(self, *, server: bool) -> ssl.SSLContext:
        context = self._contexts.get(server)
        if context is None:
            svid = self.svid
            context = make_context(
                server=server, pem=svid.pem(), leaf=svid.chain[0], bundles=self._bundles.values()
            )
            self._contexts[server] = context
        return context

    def verify(self, chain: list[bytes]) -> str:
        """Return the peer's SPIFFE ID from its DER chain, leaf first; raises Unauthorized."""
        leaf = self._verifier.verify(chain, self._bundles, self._clock.now())
        if why := self.refuses(leaf):
            raise Unauthorized(f"{leaf.id} is refused: {why}", remedy="give it a new identity")
        return str(leaf.id)
