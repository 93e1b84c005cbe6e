"""Who we are on the wire, as a port: TLS contexts and the check of a peer's certificate."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Protocol


class ShowingContext(ssl.SSLContext):
    """A context that knows which certificate of ours it shows."""

    shown: bytes = b""
    """The leaf, in DER."""


class Identity(Protocol):
    """Given to ``rpc`` by whoever holds keys. Contexts change when the identity rotates: ask each time."""

    @property
    def spiffe_id(self) -> str:
        """Our own SPIFFE ID."""
        ...

    def client_context(self) -> ssl.SSLContext:
        """Return the context for calls that we make; ALPN ``h2``, peer certificate demanded."""
        ...

    def server_context(self) -> ssl.SSLContext:
        """Return the context for calls that we take; ALPN ``h2``, peer certificate demanded."""
        ...

    def on_rotation(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` after each change of our keys; returns what takes that back."""
        ...

    def verify(self, chain: list[bytes]) -> str:
        """Return the peer's SPIFFE ID from its DER chain, leaf first.

        Raises :class:`nsmesh.core.errors.Unauthorized` when the chain does not verify against the bundle of
        the trust domain that the leaf names.
        """
        ...
