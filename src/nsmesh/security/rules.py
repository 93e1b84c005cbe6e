"""The policies of the field as plain functions: who may speak, on which path, in whose name.

Each takes a :class:`Question` and returns None, or a :class:`Refusal` that says which hop and which two
identities are at odds. What they accept and refuse is what the rules of the Go implementation accept and
refuse (contract 3.3), tokens that are no well-formed ES256 JWT apart: those are refused wherever they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from nsmesh.model.messages import PathSegment
from nsmesh.security.jws import BadToken
from nsmesh.security.token import Claims, TokenReader


class Undecided(Exception):
    """A policy cannot be evaluated: the input has two answers."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a policy refused. ``hop`` is the index of the segment at fault, or None."""

    why: str
    hop: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What the policies are asked about.

    ``tokens`` and ``names``: those of the path's segments; None where there is no path at all. ``index``:
    the segment of the process that asks. ``certificate``: DER of the leaf that the peer showed, ``peer`` its
    SPIFFE ID. ``now``: wall time. ``segments``: the path of a Request or Close as it is. For registries
    ``resource`` is the name of the service or endpoint, ``owners`` the recorded path ids by name. For
    monitors ``connections`` are the ids once requested by SPIFFE ID, and ``selected`` those that are asked
    for now.
    """

    tokens: Sequence[str] | None
    index: int
    certificate: bytes
    peer: str
    now: float
    reader: TokenReader = field(repr=False)
    names: Sequence[str] = ()
    segments: Sequence[PathSegment] | None = None
    resource: str = ""
    owners: Mapping[str, Sequence[str]] = field(default_factory=dict)
    connections: Mapping[str, Sequence[str]] = field(default_factory=dict)
    selected: Sequence[str] = ()
    _claims: dict[int, Claims | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def claims(self, index: int) -> Claims | None:
        """Return what token ``index`` claims, or None where it is no token."""
        assert self.tokens is not None
        if index in self._claims:  # each is asked for by several policies
            return self._claims[index]
        try:
            found: Claims | None = self.reader.read(self.tokens[index])
        except BadToken:
            found = None
        self._claims[index] = found
        return found

    def hop(self, index: int) -> str:
        """Return hop ``index`` in words: its index and the names around it."""
        names = [shown(name) for name in self.names[index : index + 2] if name]
        return f"hop {index}" + (f" ({' -> '.join(names)})" if names else "")


Policy: TypeAlias = Callable[[Question], Refusal | None]


def shown(text: object, limit: int = 160) -> str:
    """Return a peer's text as it may stand in an error: short, one line, printable ASCII."""
    if text is None:
        return "nobody"
    raw = text if isinstance(text, str) else repr(text)[: limit + 1]
    safe = raw[: limit + 1].encode("ascii", "backslashreplace").decode()
    safe = "".join(char if char.isprintable() else "?" for char in safe)
    return safe if len(safe) <= limit else safe[:limit] + "..."


def tokens_valid(question: Question) -> Refusal | None:
    """Demand a well-formed token of every segment."""
    if question.tokens is None:
        return Refusal("there is no path")
    for index, token in enumerate(question.tokens):
        try:
            question.reader.read(token)
        except BadToken as error:
            return Refusal(f"{error.what}; the caller is {shown(question.peer or None)}", index)
    return None


def tokens_expired(question: Question) -> Refusal | None:
    """Demand of every token an ``exp`` that lies in the future."""
    if question.tokens is None:
        return Refusal("there is no path")
    for index in range(len(question.tokens)):
        claims = question.claims(index)
        if claims is None:
            return Refusal("the token cannot be read", index)
        if claims.expires is not None and question.now < claims.expires:
            continue
        between = f"of {shown(claims.subject)} to {_audience(claims)}"
        if claims.expires is None:
            return Refusal(f"the token {between} has no exp", index)
        ago = question.now - claims.expires
        return Refusal(f"the token {between} expired {ago:.0f} s ago by the clock here", index)
    return None


def _audience(claims: Claims | None) -> str:
    if claims is None or claims.audience is None:
        return "nobody"
    return ", ".join(shown(one) for one in claims.audience[:2]) or "nobody"


def tokens_chained(question: Question) -> Refusal | None:
    """Demand that each token but the last is addressed to the subject of the next one.

    Raises Undecided when a token has several audiences of which some are the next subject and some not.
    """
    if question.tokens is None:
        return Refusal("there is no path")
    for index in range(len(question.tokens) - 1):
        claims, following = question.claims(index), question.claims(index + 1)
        if claims is None or following is None:
            return Refusal("the token cannot be read", index if claims is None else index + 1)
        subject = following.subject
        answers = {one == subject for one in claims.audience or () if subject is not None}
        if len(answers) > 1:
            raise Undecided(
                f"tokens_chained: {question.hop(index)}: one token is addressed to {_audience(claims)}"
            )
        if answers != {True}:
            return Refusal(
                f"the token of {shown(claims.subject)} is addressed to {_audience(claims)}, "
                f"but the next one is of {shown(subject)}",
                index,
            )
    return None


def _signed(question: Question, index: int, whose: str) -> Refusal | None:
    assert question.tokens is not None
    if not question.certificate:
        return Refusal(f"the {whose} showed no certificate", index)
    if question.reader.signed(question.tokens[index], question.certificate):
        return None
    claims = question.claims(index)
    subject = shown(claims.subject if claims else None)
    return Refusal(
        f"the token says {subject}, but the {whose} {shown(question.peer or None)} did not sign it", index
    )


def prev_token_signed(question: Question) -> Refusal | None:
    """Demand that the caller signed the previous segment's token."""
    index = question.index - 1
    if not question.tokens or index < 0:
        return Refusal(f"the path of {shown(question.peer or None)} has no segment of the caller before ours")
    if index >= len(question.tokens):
        return Refusal(f"the path has {len(question.tokens)} segments, and no segment {index}", index)
    return _signed(question, index, "caller")


def next_token_signed(question: Question) -> Refusal | None:
    """Demand that the server signed the next segment's token."""
    index = question.index + 1
    if question.tokens is None or len(question.tokens) <= index:
        return Refusal(f"the server {shown(question.peer or None)} put no segment of its own behind ours")
    return _signed(question, index, "server")


def client_allowed(question: Question) -> Refusal | None:
    """Demand that the name is free, or belongs to the subject of the path's first token."""
    owner = question.owners.get(question.resource)
    if owner is None:
        return None
    claims = question.claims(0) if question.tokens else None
    subject = claims.subject if claims else None
    if owner and subject is not None and owner[0] == subject:
        return None
    holder = shown(owner[0] if owner else None)
    return Refusal(f"{shown(question.resource)} belongs to {holder}, not to {shown(subject)}", 0)


def service_connection(question: Question) -> Refusal | None:
    """Demand that the caller asks for a connection that it requested once."""
    own = set(question.connections.get(question.peer, ()))
    if own & set(question.selected):
        return None
    return Refusal(f"none of the selected connections was requested by {shown(question.peer or None)}")


def prev_token_subject(question: Question) -> Refusal | None:
    """Demand that the previous segment's token speaks in the name of who sent it.

    Not of the field, whose rules let any signed subject pass. Peers of the field keep it all the same: they
    mint with the SVID that they show. Selected by the mask ``nsmesh/.*``, and by every role on its own.
    """
    index = question.index - 1
    if not question.tokens or not 0 <= index < len(question.tokens):
        return Refusal("the path has no segment of the caller before ours")
    claims = question.claims(index)
    if claims is not None and claims.subject is not None and claims.subject == question.peer:
        return None
    subject = shown(claims.subject if claims else None)
    return Refusal(f"the token says {subject}, but the caller is {shown(question.peer or None)}", index)
