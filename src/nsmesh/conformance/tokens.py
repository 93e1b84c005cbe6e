"""Tokens that are wrong in one way each: every manager has to refuse them."""

from __future__ import annotations

import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from nsmesh.conformance.actor import Headers, Peer, status_of
from nsmesh.conformance.case import Group, expect
from nsmesh.conformance.world import World
from nsmesh.core.tokens import EXPIRES_HEADER, TOKEN_HEADER

GROUP = Group("tokens")
DENIED = "PERMISSION_DENIED"

Bend = Callable[[Peer], Headers]


def _foreign() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


_RIGHT: dict[str, tuple[str, Bend]] = {
    "right": ("a right token", lambda peer: peer.headers()),
    "aud-twice": ("two equal audiences", lambda peer: peer.headers(peer.token(aud=[peer.spiffe_id] * 2))),
    "exp-fraction": ("a fractional exp", lambda peer: peer.headers(peer.token(exp=time.time() + 60.5))),
}
_WRONG: dict[str, tuple[str, Bend]] = {
    "aud-text": ("aud as a plain text", lambda peer: peer.headers(peer.token(aud=peer.spiffe_id))),
    "aud-other": ("another audience", lambda peer: peer.headers(peer.token(aud=["spiffe://x/y"]))),
    "aud-empty": ("an empty list of audiences", lambda peer: peer.headers(peer.token(aud=[]))),
    "aud-absent": ("no audience", lambda peer: peer.headers(peer.token(aud=None))),
    "expired": ("a token of yesterday", lambda peer: peer.headers(peer.token(exp=int(time.time()) - 86400))),
    "exp-absent": ("a token without exp", lambda peer: peer.headers(peer.token(exp=None))),
    "foreign-key": ("a token signed with another key", lambda peer: peer.headers(peer.token(key=_foreign()))),
    "no-token": ("a text that is no token", lambda peer: peer.headers("nonsense")),
    "absent": ("no headers at all", lambda _peer: ()),
    "expires-absent": ("no expires header", lambda peer: peer.headers()[:1]),
    "twice": ("the token header twice", lambda peer: (*peer.headers(), (TOKEN_HEADER, peer.token()))),
    "expires-bent": (
        "an expires that is no time",
        lambda p: ((TOKEN_HEADER, p.token()), (EXPIRES_HEADER, "x")),
    ),
}


async def _ask(world: World, bend: Bend) -> tuple[str, str]:
    """Request a service that is not there: a token that passes gets as far as that."""
    nsmgr = await world.nsmgr()
    return await status_of(nsmgr.request(world.wanted("token", world.name("none")), bend(nsmgr)))


def _passes(name: str, what: str, bend: Bend) -> None:
    @GROUP.case(name, "3.2", f"{what} passes (and the service is not found)")
    async def check(world: World) -> str:
        status, text = await _ask(world, bend)
        return expect(status != DENIED and "not found" in text, f"{status}: {text[:60]}")


def _fails(name: str, what: str, bend: Bend) -> None:
    @GROUP.case(name, "3.3", f"PERMISSION_DENIED for {what}")
    async def check(world: World) -> str:
        status, text = await _ask(world, bend)
        return expect(status == DENIED, status if status == DENIED else f"{status}: {text[:60]}")


for _name, (_what, _bend) in _RIGHT.items():
    _passes(_name, _what, _bend)
for _name, (_what, _bend) in _WRONG.items():
    _fails(_name, _what, _bend)


@GROUP.case("aud-two", "3.3", "INTERNAL (or PERMISSION_DENIED) for two different audiences")
async def two_audiences(world: World) -> str:
    """Address a token to two."""
    status, _ = await _ask(world, lambda peer: peer.headers(peer.token(aud=[peer.spiffe_id, "spiffe://x/y"])))
    return expect(status in {"INTERNAL", DENIED}, status)


@GROUP.case("own-segment", "9#6", "without headers, a token in the caller's own segment passes")
async def own_segment(world: World) -> str:
    """Write the token into the path."""
    nsmgr = await world.nsmgr()
    request = world.wanted("segment", world.name("none"))
    segment = request.connection.path.path_segments[0]
    segment.token = nsmgr.token()
    segment.expires.FromSeconds(int(time.time() + 60))
    status, text = await status_of(nsmgr.request(request, ()))
    return expect(status != DENIED and "not found" in text, f"{status}: {text[:60]}")
