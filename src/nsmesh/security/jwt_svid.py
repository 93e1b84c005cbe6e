"""JWT-SVIDs: tokens of the SPIFFE Workload API. The mesh itself speaks with path tokens, and needs none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nsmesh.core.errors import Invalid
from nsmesh.security import jws
from nsmesh.security.authority_files import Authority
from nsmesh.security.spiffe import SpiffeId
from nsmesh.security.token import seconds_of

TTL = 300.0
"""Longest life of a JWT-SVID, seconds."""
REFRESH = 300
"""Seconds after which bundles are to be fetched again, where nobody pushes them."""


def mint_jwt_svid(
    authority: Authority, spiffe_id: str, audience: Sequence[str], ttl: float, now: float
) -> str:
    """Return a JWT-SVID for ``audience`` (one or more), valid for ``ttl`` seconds, :data:`TTL` at most."""
    if not audience or not all(audience):
        raise Invalid("a JWT-SVID needs an audience", remedy="say who shall accept it")
    claims = {
        "sub": spiffe_id,
        "aud": list(audience),
        "exp": int(now + min(ttl, TTL)),
        "iat": int(now),
    }
    return jws.sign({"kid": authority.key_id, "typ": "JWT"}, claims, authority.jwt_key)


def jwt_bundle(authorities: Sequence[Authority]) -> bytes:
    """Return the public keys as a JSON Web Key Set."""
    keys = []
    for authority in authorities:
        numbers = authority.jwt_key.public_key().public_numbers()
        keys.append(
            {
                "kty": "EC",
                "use": "jwt-svid",
                "kid": authority.key_id,
                "crv": "P-256",
                "x": jws.encode(numbers.x.to_bytes(32, "big")),
                "y": jws.encode(numbers.y.to_bytes(32, "big")),
            }
        )
    return json.dumps({"keys": keys, "spiffe_refresh_hint": REFRESH}, separators=(",", ":")).encode()


def validate_jwt_svid(
    token: str, audience: str, trust_domain: str, authorities: Sequence[Authority], now: float
) -> tuple[str, Mapping[str, Any]]:
    """Return SPIFFE ID and claims of a JWT-SVID of ours; raises Invalid saying why it is none."""
    parsed = jws.parse(token)
    if parsed.header.get("typ", "JWT") not in ("JWT", "JOSE"):
        raise Invalid("the JWT-SVID has a wrong type", remedy="its typ is JWT or JOSE")
    subject, listeners = parsed.claims.get("sub"), parsed.claims.get("aud")
    identity = SpiffeId.parse(subject if isinstance(subject, str) else "")
    if identity.trust_domain != trust_domain:
        raise Invalid(f"the JWT-SVID is of {identity.trust_domain}, whose keys are not known here")
    if isinstance(listeners, str):
        listeners = [listeners]
    if not audience or not isinstance(listeners, list) or audience not in listeners:
        raise Invalid(f"the JWT-SVID of {identity} is not for {audience!a}")
    expires = seconds_of(parsed.claims.get("exp"))
    if expires is None or expires <= now:
        raise Invalid(f"the JWT-SVID of {identity} has expired", remedy="fetch a new one")
    signer = next((one for one in authorities if one.key_id == parsed.header.get("kid")), None)
    if signer is None or not parsed.verifies(signer.jwt_key.public_key()):
        raise Invalid(f"the JWT-SVID of {identity} was not signed by {trust_domain}")
    return str(identity), parsed.claims
