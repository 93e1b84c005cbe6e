"""Which policies a component asks, and how a refusal reads.

Variables like ``NSM_REGISTRY_SERVER_POLICIES`` name policies by masks of the files in which the Go
implementation keeps its rules. Here those names select functions of :mod:`nsmesh.security.rules`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nsmesh.core.errors import Internal, Invalid, Unauthorized
from nsmesh.core.metrics import Counter
from nsmesh.security.rules import (
    Policy,
    Question,
    Undecided,
    client_allowed,
    next_token_signed,
    prev_token_signed,
    prev_token_subject,
    service_connection,
    tokens_chained,
    tokens_expired,
    tokens_valid,
)

MAX_SEGMENTS = 1024
"""Longest path that is looked at, segments; real ones have 4 to 10."""
REFUSALS = Counter("nsm_authorize_refusals", "Calls that a policy refused, by its name.", ("rule",))
REFUSED = "no sufficient privileges"
"""How every refusal begins: peers of the field look for it."""

BUILT_IN: Mapping[str, Policy] = {
    "common/tokens_chained.rego": tokens_chained,
    "common/tokens_expired.rego": tokens_expired,
    "common/tokens_valid.rego": tokens_valid,
    "server/prev_token_signed.rego": prev_token_signed,
    "client/next_token_signed.rego": next_token_signed,
    "registry/client_allowed.rego": client_allowed,
    "monitor/service_connection.rego": service_connection,
    "nsmesh/prev_token_subject.rego": prev_token_subject,
}
"""Policies under the names by which variables select them."""

FOLDER = "etc/nsm/opa/"
COMMON, SERVER, CLIENT, REGISTRY = (
    FOLDER + f"{part}/.*.rego" for part in ("common", "server", "client", "registry")
)
OWN_NAME = FOLDER + "nsmesh/prev_token_subject.rego"
"""Of our own: nobody's token speaks in the name of somebody else."""
SERVER_POLICIES = (COMMON, SERVER)
CLIENT_POLICIES = (COMMON, CLIENT)
REGISTRY_SERVER_POLICIES = (COMMON, REGISTRY, SERVER)
REGISTRY_CLIENT_POLICIES = (COMMON, REGISTRY, CLIENT)

_ORDER = ("tokens_valid", "tokens_expired", "tokens_chained")


def select(masks: Sequence[str]) -> tuple[Policy, ...]:
    """Return the built-in policies that masks like ``etc/nsm/opa/common/.*.rego`` select; none for none.

    A mask is a folder and a regular expression for the file's name. Raises Invalid for one that selects
    nothing: a policy that somebody wants and nobody evaluates would be worse than no start.
    """
    found: dict[Policy, None] = {}
    for mask in masks:
        folder, _, pattern = mask.strip().lstrip("/").removeprefix(FOLDER).rpartition("/")
        try:
            matching = [
                policy
                for name, policy in BUILT_IN.items()
                if name.rpartition("/")[0] == folder and re.fullmatch(pattern, name.rpartition("/")[2])
            ]
        except re.error as error:
            raise Invalid(f"the policy mask {mask!r} is no regular expression: {error}") from error
        if not matching:
            raise Invalid(
                f"the policy mask {mask!r} selects no policy",
                remedy=f"built in are {', '.join(FOLDER + name for name in BUILT_IN)}; empty means none",
            )
        found.update(dict.fromkeys(matching))
    # tokens that cannot be read are better said so than as a chain that is broken
    return tuple(sorted(found, key=lambda one: _ORDER.index(one.__name__) if one.__name__ in _ORDER else 9))


def authorize(policies: Sequence[Policy], question: Question) -> None:
    """Ask every policy; raises Unauthorized that names policy, hop and identities, or Internal."""
    if question.tokens is not None and len(question.tokens) > MAX_SEGMENTS:
        raise Unauthorized(
            f"{REFUSED}: a path of {len(question.tokens)} segments is longer than {MAX_SEGMENTS}",
            remedy="look for a loop between services",
        )
    for policy in policies:
        try:
            refusal = policy(question)
        except Undecided as error:
            raise Internal(
                f"authorization policy check: {error}", remedy="address a token to one audience"
            ) from error
        if refusal is not None:
            REFUSALS.add(policy.__name__)
            hop = f" {question.hop(refusal.hop)}" if refusal.hop is not None else " the call"
            raise Unauthorized(
                f"{REFUSED}: {policy.__name__} refused{hop}: {refusal.why}", remedy=_REMEDIES[policy]
            )


_REMEDIES: Mapping[Policy, str] = {
    tokens_valid: "send an ES256 token in nsm-client-token and nsm-client-token-expires",
    tokens_expired: "refresh earlier, and compare the clocks of both hosts",
    tokens_chained: "address each token to the SPIFFE ID of the next hop alone",
    prev_token_signed: "sign the token with the key that TLS shows, and send the path with its right index",
    next_token_signed: "give adjacent hops different names; the server signs with the key that TLS shows",
    client_allowed: "use another name, or let the owner unregister it first",
    service_connection: "ask for connections of your own",
    prev_token_subject: "mint tokens with the SPIFFE ID of the SVID that TLS shows",
}
