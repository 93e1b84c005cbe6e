"""Trying one candidate after the other until one grants a Request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from nsmesh.core.call import Call
from nsmesh.core.deciding import Candidate, is_refresh, listed
from nsmesh.core.element import Handler
from nsmesh.core.errors import MeshError, TimedOut, Unavailable, Unreachable, from_status
from nsmesh.core.life import BUDGET, REACHED
from nsmesh.core.peering import TARGET, TARGET_NAME
from nsmesh.core.unreached import Unreached
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkServiceRequest

log = structlog.get_logger()

Prepare = Callable[[NetworkServiceRequest, Candidate], None]
"""Fits a Request's copy to the candidate that it goes to."""


def _as_it_is(request: NetworkServiceRequest, candidate: Candidate) -> None:
    pass


def never(url: str) -> bool:  # noqa: ARG001 - nothing is known of any
    """Say of no URL that nobody answers there."""
    return False


async def try_in_order(
    call: Call,
    request: NetworkServiceRequest,
    candidates: Sequence[Candidate],
    next: Handler,
    *,
    complaint: str,
    unreached: Unreached,
    bound: bool = False,
    silent: Callable[[str], bool] = never,
    prepare: Prepare = _as_it_is,
) -> tuple[Candidate, Connection]:
    """Send the Request to one candidate after the other until one grants it; return who, and the answer.

    Each gets a copy of its own, with TARGET and its name set, and half of the time that is left, the last one
    all of it. Those who lately could not be reached come late, and last of all those at a URL of which
    ``silent`` says that nobody answers; what was learnt while one was asked counts for the next. What a
    failed try of a first Request left behind is closed before the next one. ``bound``: the connection lives
    at the first; others are asked only when nobody can be reached there. When all fail, the error begins with
    ``complaint`` and lists what each answered; it has the status that they agree on, else UNAVAILABLE.
    """
    now = asyncio.get_running_loop().time
    waiting = list(candidates)
    failures: list[tuple[str, MeshError]] = []
    while waiting:
        if failures:
            await _leave(call, request, failures[-1][1], next)
            if call.deadline is not None and call.deadline <= now():
                break
        if not bound:
            waiting.sort(key=lambda one: (silent(one.url), unreached.last(one, now())))
        candidate = waiting.pop(0)
        attempt = copy_of(request)
        prepare(attempt, candidate)
        share = _half(call) if waiting and not bound else call
        try:
            there = share.put(TARGET, candidate.url).put(TARGET_NAME, candidate.name)
            answer = await next.request(there, attempt)
        except MeshError as error:
            unreached.note(candidate, error, now())
            failures.append((candidate.name, error))
            log.info(
                "candidate failed", connection=request.connection.id, name=candidate.name, why=str(error)
            )
            if bound and len(failures) == 1 and not _nobody_at(candidate, error):
                waiting.clear()
        else:
            unreached.note(candidate, None, now())
            return candidate, answer
    raise _all_failed(complaint, failures, len(waiting)) from failures[-1][1]


def _half(call: Call) -> Call:
    left = call.remaining()
    return call if left is None else call.within(left / 2)


def _nobody_at(candidate: Candidate, error: MeshError) -> bool:
    return isinstance(error, Unreachable) and error.target == candidate.url


async def _leave(call: Call, request: NetworkServiceRequest, error: MeshError, next: Handler) -> None:
    if is_refresh(call):
        return  # the connection lives: who moves it closes it at the old place
    half = copy_of(call.state.pop(REACHED) or request.connection)
    try:
        await next.close(call.within(BUDGET), half)
    except MeshError as second:
        error.add_note(f"and its undo failed: {second}")
        log.warning("undo of a failed try failed", connection=half.id, error=str(second))


def _all_failed(complaint: str, failures: list[tuple[str, MeshError]], left: int) -> MeshError:
    said: dict[str, list[str]] = {}
    for name, error in failures:
        said.setdefault(str(error), []).append(name)
    text = f"{complaint}: {listed((', '.join(names), why) for why, names in said.items())}"
    if left:
        return TimedOut(f"{text}; no time was left for {left} more")
    statuses = {error.status for _, error in failures}
    return from_status(statuses.pop(), text) if len(statuses) == 1 else Unavailable(text)
