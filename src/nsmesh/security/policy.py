"""Which policies a component asks, and how a refusal reads.

Variables like ``NSM_REGISTRY_SERVER_POLICIES`` name policies by masks of files. Names of the files in which
the Go implementation keeps its rules select functions of :mod:`nsmesh.security.rules`, and so does a file
with the text of one of them; every other file is a policy of the user's, evaluated as
:mod:`nsmesh.security.rego` says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nsmesh.core.errors import Internal, Invalid, Outdated, Unauthorized
from nsmesh.core.metrics import Counter
from nsmesh.security.rego import files_of, read_policy, rego_policy
from nsmesh.security.rego_source import digest
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

_SHIPPED: Mapping[str, str] = {
    "f3f7cbcae9fb34152876c0687b88064a9f035743392560eee70a70f90a32292b": "common/tokens_chained.rego",
    "54fc08cef2dd572aa7938c5a8568d52956fbc09056c8a7de8f2dd5c3bc089fef": "common/tokens_expired.rego",
    "721a2fc53a88b8125dd1d88019f145054c4e6a65badcfc8f17dbd92ad2d120de": "common/tokens_valid.rego",
    "e27ec6256cba2ac0a3815c502eb548cc5abc462628617f2cf9c79e4bc5a4aaa0": "server/prev_token_signed.rego",
    "d0aa18808c8b75cd2b86c76869a5b2c88e3ae57aa0552338482fdbdace771335": "client/next_token_signed.rego",
    "4159c542004fa17e885b6f8518eef6ca9d1d69672d07213a21233f75a6f4895e": "registry/client_allowed.rego",
    "d91192b8d0b673be9d26b2264bb80ad85bd912e7847dbdb449541b8ff18e770a": "monitor/service_connection.rego",
}
"""What the Go implementation ships, by the fingerprint of its text: a copy on disk is the built-in policy."""

_ORDER = ("tokens_valid", "tokens_expired", "tokens_chained")


def select(masks: Sequence[str], *, folder: Path = Path("/", FOLDER)) -> tuple[Policy, ...]:
    """Return the policies that masks like ``etc/nsm/opa/common/.*.rego`` select; none for none.

    A mask is a file, or a folder and a regular expression for the names of files below it. Names below
    ``etc/nsm/opa`` are those of the built-in policies, and of files in ``folder``, of which one with the name
    of a built-in policy takes its place. Raises Invalid for a mask that selects nothing (a policy that
    somebody wants and nobody evaluates would be worse than no start) and for a file that cannot be used.
    """
    found: dict[Policy, None] = {}
    for mask in masks:
        try:
            found.update(dict.fromkeys(_selected(mask.strip(), folder)))
        except re.error as error:
            raise Invalid(f"the policy mask {mask!r} is no regular expression: {error}") from error
    # tokens that cannot be read are better said so than as a chain that is broken
    return tuple(sorted(found, key=lambda one: _ORDER.index(one.__name__) if one.__name__ in _ORDER else 9))


def _selected(mask: str, folder: Path) -> list[Policy]:
    file = Path(mask)
    if mask and file.is_file() and not mask.lstrip("/").startswith(FOLDER):
        return [_policy(file)]
    where, _, pattern = mask.lstrip("/").removeprefix(FOLDER).rpartition("/")
    wanted = re.compile(pattern)
    found = {
        name: policy
        for name, policy in BUILT_IN.items()
        if name.rpartition("/")[0] == where and wanted.fullmatch(name.rpartition("/")[2])
    }
    own = folder / where if mask.lstrip("/").startswith(FOLDER) else file.parent
    if own != Path() and (own.is_relative_to(folder) or not found):
        for path in files_of(own, wanted):
            found[f"{where}/{path.relative_to(own)}"] = _policy(path)
    if not found:
        raise Invalid(
            f"the policy mask {mask!r} selects no policy",
            remedy=f"built in are {', '.join(FOLDER + name for name in BUILT_IN)}; empty means none",
        )
    return list(found.values())


def _policy(path: Path) -> Policy:
    text = read_policy(path)
    name = _SHIPPED.get(digest(text))
    return BUILT_IN[name] if name else rego_policy(path, text)


def authorize(policies: Sequence[Policy], question: Question) -> None:
    """Ask every policy; raises Unauthorized that names policy, hop and identities, or Internal.

    Outdated, where it is the server that is not known by what it signed.
    """
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
            raise (Outdated if policy is next_token_signed else Unauthorized)(
                f"{REFUSED}: {policy.__name__} refused{hop}: {refusal.why}",
                remedy=_REMEDIES.get(policy, _OWN_REMEDY),
            )


_OWN_REMEDY = "ask whoever wrote that policy what it demands"
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
