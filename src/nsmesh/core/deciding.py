"""Deciding where a Request goes on to: candidates, tries in order, and what must be remembered of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from nsmesh.core.call import Call, Key
from nsmesh.core.element import Handler
from nsmesh.core.errors import MeshError, TimedOut, Unavailable, from_status
from nsmesh.core.life import BUDGET, LIFE, REACHED
from nsmesh.core.peering import TARGET
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest

log = structlog.get_logger()

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


CANDIDATES: Key[Candidates] = Key("candidates")
"""In ``call.values``: set where the endpoint is still to be chosen."""
ENDPOINT: Key[Candidate] = Key("endpoint")
"""In ``call.state``: the endpoint by name that this connection was last sent to."""
DOWNSTREAM: Key[Mechanism] = Key("downstream-mechanism")
"""In ``call.state``: the mechanism that the next hop agreed to."""

Prepare = Callable[[NetworkServiceRequest, Candidate], None]
"""Fits a Request's copy to the candidate that it goes to."""


def _as_it_is(request: NetworkServiceRequest, candidate: Candidate) -> None:
    pass


def is_refresh(call: Call) -> bool:
    """Return whether the Request belongs to a connection that is up."""
    life = call.state.get(LIFE)
    return life is not None and life.connection is not None


def listed(reasons: Iterable[tuple[str, str]]) -> str:
    """Return ``name: why; name: why``, cut to the first :data:`SHOWN`."""
    pairs = list(reasons)
    text = "; ".join(f"{name}: {why}" if why else name for name, why in pairs[:SHOWN])
    return f"{text}; and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else text


async def try_in_order(
    call: Call,
    request: NetworkServiceRequest,
    candidates: Sequence[Candidate],
    next: Handler,
    *,
    complaint: str,
    prepare: Prepare = _as_it_is,
) -> tuple[Candidate, Connection]:
    """Send the Request to one candidate after the other until one grants it; return who, and the answer.

    Each gets a copy of its own, with TARGET set. What a failed try of a first Request left behind is closed
    before the next one. When all fail, the error begins with ``complaint`` and lists what each answered; it
    has the status that they agree on, else UNAVAILABLE.
    """
    failures: list[tuple[str, MeshError]] = []
    for candidate in candidates:
        if failures:
            await _leave(call, request, failures[-1][1], next)
            if call.deadline is not None and call.deadline <= asyncio.get_running_loop().time():
                break
        attempt = copy_of(request)
        prepare(attempt, candidate)
        try:
            return candidate, await next.request(call.put(TARGET, candidate.url), attempt)
        except MeshError as error:
            failures.append((candidate.name, error))
            log.info(
                "candidate failed", connection=request.connection.id, name=candidate.name, why=str(error)
            )
    raise _all_failed(complaint, failures, len(candidates)) from failures[-1][1]


async def _leave(call: Call, request: NetworkServiceRequest, error: MeshError, next: Handler) -> None:
    if is_refresh(call):
        return  # the connection lives: who moves it closes it at the old place
    half = copy_of(call.state.pop(REACHED) or request.connection)
    try:
        await next.close(call.within(BUDGET), half)
    except MeshError as second:
        error.add_note(f"and its undo failed: {second}")
        log.warning("undo of a failed try failed", connection=half.id, error=str(second))


def _all_failed(complaint: str, failures: list[tuple[str, MeshError]], asked: int) -> MeshError:
    said: dict[str, list[str]] = {}
    for name, error in failures:
        said.setdefault(str(error), []).append(name)
    text = f"{complaint}: {listed((', '.join(names), why) for why, names in said.items())}"
    if len(failures) < asked:
        return TimedOut(f"{text}; no time was left for {asked - len(failures)} more")
    statuses = {error.status for _, error in failures}
    return from_status(statuses.pop(), text) if len(statuses) == 1 else Unavailable(text)
