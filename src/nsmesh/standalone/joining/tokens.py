"""The join tokens that a mesh has given away: each good for one host, once, for a while."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from nsmesh.core.clock import Clock
from nsmesh.core.errors import Exhausted, Invalid, Unauthorized
from nsmesh.model.duration import format_duration
from nsmesh.security.join_token import JoinToken, proves
from nsmesh.standalone.joining import files

LIFETIME = 600.0
"""Seconds that a token is good for unless told otherwise."""
LONGEST = 24 * 3600.0
"""Seconds that a token may be good for."""
KEPT = 24 * 3600.0
"""Seconds for which a token that is over is remembered, so that it can be said why it is refused."""
MOST = 100
"""Tokens that may be good at a time."""


@dataclass(slots=True)
class _Given:
    """One token. ``verifier``: its public half, in hexadecimal; ``used_by``: the node that joined with it."""

    verifier: str
    expires: float
    used_by: str = ""


class Tokens:
    """Kept in one file, without any secret."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._known = {name: _Given(**item) for name, item in (files.read(path) or {}).items()}

    def create(self, lifetime: float, pin: bytes) -> JoinToken:
        """Return a new token; raises Invalid or Exhausted."""
        if not 1 <= lifetime <= LONGEST:
            raise Invalid(
                f"a join token cannot be good for {lifetime:g} s",
                remedy=f"give --ttl 1s to {format_duration(LONGEST)}",
            )
        now = self._clock.now()
        self._known = {name: one for name, one in self._known.items() if one.expires + KEPT > now}
        if sum(not one.used_by and one.expires > now for one in self._known.values()) >= MOST:
            raise Exhausted(f"there are {MOST} join tokens that are good", remedy="use them, or wait")
        token = JoinToken.new(pin)
        self._known[token.id] = _Given(token.verifier().hex(), now + lifetime)
        self._save()
        return token

    def check(self, token: str, pin: bytes, claim: bytes, proof: bytes) -> None:
        """Raise Unauthorized unless ``proof`` shows a token that is good now."""
        known = self._known.get(token)
        again = "make a new one on the first host: nsm token create"
        if known is None:
            raise Unauthorized("this mesh has given no such join token", remedy=again)
        if not proves(bytes.fromhex(known.verifier), pin, claim, proof):
            raise Unauthorized(
                f"the join token {token} is not the one that was given", remedy="copy it whole, or " + again
            )
        if known.used_by:
            raise Unauthorized(
                f"the join token {token} has been used already, by {known.used_by}", remedy=again
            )
        late = self._clock.now() - known.expires
        if late >= 0:
            raise Unauthorized(
                f"the join token {token} has expired, {format_duration(round(late))} ago", remedy=again
            )

    def use(self, token: str, node: str) -> None:
        """Note that a token is used up."""
        self._known[token].used_by = node
        self._save()

    def _save(self) -> None:
        files.write(self._path, {name: asdict(one) for name, one in self._known.items()})
