"""Deciding where a Request goes on to: candidates, and what must be remembered of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nsmesh.core.call import Call, Key
from nsmesh.core.codecs import json_codec, message_codec
from nsmesh.core.life import LIFE
from nsmesh.model.fileurl import after_restart
from nsmesh.model.messages import Mechanism

SHOWN = 20
"""How many names an error lists before it only counts."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Somebody whom a Request may go to."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Candidates:
    """The endpoints that matching left for a network service, in registry order, repeats included."""

    service: str
    members: tuple[Candidate, ...]


CANDIDATE = json_codec(
    lambda pair: Candidate(pair[0], after_restart(pair[1])), lambda one: [one.name, one.url]
)
"""How a candidate is kept."""

CANDIDATES: Key[Candidates] = Key("candidates")
"""In ``call.values``: set where the endpoint is still to be chosen."""
ENDPOINT: Key[Candidate] = Key("endpoint", CANDIDATE)
"""In ``call.state``: the endpoint by name that this connection was last sent to."""
DOWNSTREAM: Key[Mechanism] = Key("downstream-mechanism", message_codec(Mechanism))
"""In ``call.state``: the mechanism that the next hop agreed to."""


def is_refresh(call: Call) -> bool:
    """Return whether the Request belongs to a connection that is up."""
    life = call.state.get(LIFE)
    return life is not None and life.up


def listed(reasons: Iterable[tuple[str, str]]) -> str:
    """Return ``name: why; name: why``, cut to the first :data:`SHOWN`."""
    pairs = list(reasons)
    text = "; ".join(f"{name}: {why}" if why else name for name, why in pairs[:SHOWN])
    return f"{text}; and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else text
