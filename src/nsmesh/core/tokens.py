"""Tokens, as a port: who mints them, and the headers that carry them.

A token says "I, ``sub``, speak to ``aud``", so it can be minted only when the peer is known: behind the dial.
"""

from __future__ import annotations

from typing import Protocol

from nsmesh.core.call import Call, Key, Peer
from nsmesh.core.clock import Clock
from nsmesh.model.times import from_rfc3339, rfc3339

TOKEN_HEADER = "nsm-client-token"  # noqa: S105 - the name of a header
EXPIRES_HEADER = "nsm-client-token-expires"

OUTGOING: Key[tuple[tuple[str, str], ...]] = Key("outgoing")
"""Request metadata that the stub of a remote peer has to send with this call."""


class TokenSource(Protocol):
    """Mints tokens with this process's identity."""

    def mint(self, audience: Peer) -> tuple[str, float]:
        """Return a token addressed to ``audience`` and when it ends (wall time, seconds since the epoch).

        An ``in_process`` audience shares our identity. Tokens may be handed out again while most of their
        life is left; raises :class:`nsmesh.core.errors.Unauthorized` when the audience has no identity that a
        token can be addressed to.
        """
        ...

    def fit(self, token: str, caller: Peer) -> str:
        """Return a token of ours as it stands in the answer to ``caller``.

        It says the same, and is signed with the key whose certificate this caller was shown.
        """
        ...

    def subject(self, token: str) -> str:
        """Return whose token it says to be, a SPIFFE ID; empty where it does not say. Nothing is verified."""
        ...


class PlainTokens:
    """Empty tokens that only say how long a connection lives without a refresh: for peers without identity.

    ``lifetime`` in seconds.
    """

    def __init__(self, clock: Clock, lifetime: float = 600.0) -> None:
        self._clock = clock
        self._lifetime = lifetime

    def mint(self, audience: Peer) -> tuple[str, float]:  # noqa: ARG002 - it proves nothing to anybody
        """Return an empty token that ends one lifetime from now."""
        return "", self._clock.now() + self._lifetime

    def fit(self, token: str, caller: Peer) -> str:  # noqa: ARG002 - nothing is signed
        """Return the token."""
        return token

    def subject(self, token: str) -> str:  # noqa: ARG002 - nobody has a name
        """Return nothing, as peers without identity have no name."""
        return ""


def token_headers(token: str, expires: float) -> tuple[tuple[str, str], ...]:
    """Return the two headers of a token that ends at ``expires`` (wall time)."""
    return ((TOKEN_HEADER, token), (EXPIRES_HEADER, rfc3339(expires)))


def received_token(call: Call) -> tuple[str, float]:
    """Return token and expiry (wall time) of the caller's headers.

    Raises ValueError saying why when they do not stand there exactly once each, or cannot be read.
    """
    tokens = call.header(TOKEN_HEADER)
    expiries = call.header(EXPIRES_HEADER)
    for name, values in ((TOKEN_HEADER, tokens), (EXPIRES_HEADER, expiries)):
        if len(values) != 1:
            raise ValueError(f"the header {name} came {len(values)} times")
    return tokens[0], from_rfc3339(expiries[0])


def sends_token(call: Call) -> bool:
    """Return whether any of the two headers came with the call."""
    return bool(call.header(TOKEN_HEADER) or call.header(EXPIRES_HEADER))
