"""Path tokens: "I, ``sub``, speak to ``aud``", signed with the key of an SVID (contract 3.2).

A token is minted once per audience and handed out again for a part of its life; claims are read once per
token, a signature is verified once per token and leaf. Whether a token has expired is asked of the clock
each time, so nothing remembered here outlives a token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import structlog

from nsmesh.core.call import Peer
from nsmesh.core.clock import Clock, SystemClock
from nsmesh.core.errors import Invalid, Unauthorized
from nsmesh.security import jws
from nsmesh.security.jws import BadToken
from nsmesh.security.spiffe import read_leaf
from nsmesh.security.svid import Svid, SvidSource

log = structlog.get_logger()

LIFETIME = 600.0
"""Seconds that a token lives, NSM_MAX_TOKEN_LIFETIME."""
REUSE = 0.1
"""Part of its life for which a token is handed out again; what is left must stay clear of any deadline."""

_CACHE = 8192
_CACHED_TOKEN = 2048
"""Longest token that is remembered, bytes: nobody fills the memory with tokens of his own make."""

K = TypeVar("K")
V = TypeVar("V")


class _Bounded(dict[K, V], Generic[K, V]):
    """A dict that drops its oldest entry when it is full."""

    def keep(self, key: K, value: V) -> None:
        if len(self) >= _CACHE:
            del self[next(iter(self))]
        self[key] = value


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token claims. ``subject`` and ``expires`` are None where absent or of a wrong type.

    ``audience`` is None unless it is a JSON array, as the policies of the field have it.
    """

    subject: str | None
    audience: tuple[object, ...] | None
    expires: float | None


def seconds_of(value: Any) -> float | None:
    """Return a JSON number as seconds, or None for what is none or has no end."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def read_claims(token: str) -> Claims:
    """Return the claims of a well-formed token, without looking at its signature; raises BadToken."""
    return _claims(jws.parse(token))


def _claims(parsed: jws.Jws) -> Claims:
    subject, audience = parsed.claims.get("sub"), parsed.claims.get("aud")
    return Claims(
        subject=subject if isinstance(subject, str) else None,
        audience=tuple(audience) if isinstance(audience, list) else None,
        expires=seconds_of(parsed.claims.get("exp")),
    )


class TokenReader:
    """Reads claims and checks signatures, each once while it is remembered."""

    def __init__(self) -> None:
        self._read: _Bounded[str, Claims | str] = _Bounded()
        self._signed: _Bounded[tuple[str, bytes], None] = _Bounded()

    def read(self, token: str) -> Claims:
        """Return the claims; raises BadToken for what is no well-formed token."""
        found = self._read.get(token)
        if found is None:
            try:
                found = read_claims(token)
            except BadToken as error:
                found = error.what
            if len(token) <= _CACHED_TOKEN:
                self._read.keep(token, found)
        if isinstance(found, str):
            raise BadToken(found)
        return found

    def signed(self, token: str, leaf: bytes) -> bool:
        """Whether the key of ``leaf`` (DER) signed a well-formed token."""
        if (token, leaf) in self._signed:
            return True
        try:
            if not jws.parse(token).verifies(read_leaf(leaf).public_key):
                return False
        except (BadToken, Unauthorized):
            return False
        if len(token) <= _CACHED_TOKEN:
            self._signed.keep((token, leaf), None)
        return True


@dataclass(frozen=True, slots=True)
class _Minted:
    token: str
    expires: float
    until: float


class TokenMinter:
    """Mints with the SVIDs of a source; implements :class:`nsmesh.core.tokens.TokenSource`.

    A peer checks our signature against the leaf that it saw in the handshake. While SVIDs rotate there are
    connections that show the one before: what goes over them is signed with the key of that one.
    """

    def __init__(self, source: SvidSource, *, lifetime: float = LIFETIME, clock: Clock | None = None) -> None:
        if lifetime <= 0:
            raise Invalid(f"tokens cannot live for {lifetime:.0f} s", remedy="set NSM_MAX_TOKEN_LIFETIME")
        self._source = source
        self._lifetime = lifetime
        self._clock = clock or SystemClock()
        self._minted: _Bounded[str, _Minted] = _Bounded()
        self._svid: Svid | None = None
        self._reader = TokenReader()

    def mint(self, audience: Peer) -> tuple[str, float]:
        """Return a token for ``audience``, and its end: that of the token or of the peer's certificate.

        Where an SVID has ended, ours or the peer's, that end lies in the past and peers refuse it: what has
        to be closed is closed all the same. Raises Unauthorized when the peer has no SPIFFE ID.
        """
        svid = self._source.svid
        if svid is not self._svid:
            self._svid = svid
            self._minted.clear()  # new connections show the new leaf
        name, end = self._addressee(audience, svid)
        now = self._clock.now()
        if audience.shown and audience.shown != svid.chain[0]:
            former = self._source.showing(audience.shown)
            if former is not svid:
                minted = self._sign(former, name, now)
                return minted.token, min(minted.expires, end)
        known = self._minted.get(name)
        if known is None or now >= known.until:
            known = self._sign(svid, name, now)
            self._minted.pop(name, None)
            self._minted.keep(name, known)
        return known.token, min(known.expires, end)

    def fit(self, token: str, caller: Peer) -> str:
        """Return ``token`` signed for what ``caller`` was shown; as it is where that is so, or unknown."""
        if not token or not caller.shown or not self._source.rotated:
            return token
        svid = self._source.showing(caller.shown)
        if svid.chain[0] != caller.shown or self._reader.signed(token, caller.shown):
            return token
        try:
            parsed = jws.parse(token)
        except BadToken:
            return token
        claims = dict(parsed.claims)
        if (ends := seconds_of(claims.get("exp"))) is not None:
            claims["exp"] = math.floor(min(ends, svid.not_after))
        return jws.sign({"typ": "JWT"}, claims, svid.key)

    def subject(self, token: str) -> str:
        """Return the ``sub`` of a token; see :class:`nsmesh.core.tokens.TokenSource`."""
        try:
            return self._reader.read(token).subject or ""
        except BadToken:
            return ""

    @staticmethod
    def _addressee(audience: Peer, svid: Svid) -> tuple[str, float]:
        if audience.certificate:
            leaf = read_leaf(audience.certificate)
            return str(leaf.id), leaf.not_after
        if audience.spiffe_id:
            return audience.spiffe_id, math.inf
        if audience.in_process:
            return svid.spiffe_id, math.inf
        raise Unauthorized(
            "a token cannot be addressed to a peer without a SPIFFE ID", remedy="reach it over TLS"
        )

    def _sign(self, svid: Svid, audience: str, now: float) -> _Minted:
        expires = math.floor(min(now + self._lifetime, svid.not_after))
        if expires <= now:
            log.warning("our own SVID has expired: see that the Workload API answers", svid=svid.spiffe_id)
        claims = {"sub": svid.spiffe_id, "aud": [audience], "exp": expires}
        token = jws.sign({"typ": "JWT"}, claims, svid.key)
        return _Minted(token, float(expires), now + REUSE * (expires - now))
