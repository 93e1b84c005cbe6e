"""Where a Workload API has its SVIDs from: a CA of its own, or one on another host."""

from __future__ import annotations

from typing import Protocol

from nsmesh.security.svid import Svid
from nsmesh.security.verify import Bundle


class Issuer(Protocol):
    """Issues SVIDs of one trust domain; :class:`nsmesh.security.ca.CertificateAuthority` is one."""

    @property
    def trust_domain(self) -> str:
        """The trust domain of what it issues."""
        ...

    def bundle(self) -> Bundle:
        """Return what peers need to verify it."""
        ...

    async def svid(self, spiffe_id: str, ttl: float) -> Svid:
        """Return a new SVID, valid for ``ttl`` seconds or what the issuer gives; raises MeshError."""
        ...

    def maintain(self) -> bool:
        """Do what is due, and return whether the bundle or the signer changed."""
        ...
