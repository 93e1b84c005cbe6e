"""What the Go registry answered, asked of ours: recorded conversations in virtual time.

Tokens, the ``path`` header and ``path_ids`` are the business of elements in front and left out here.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from nsmesh.chains.registry import memory_registry, sqlite_registry
from nsmesh.core.call import Call
from nsmesh.core.element import Chain
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.model.messages import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from nsmesh.model.times import seconds
from nsmesh.registry.query import content_of
from nsmesh.registry.sqlite import RegistryFile

TRACES = Path(__file__).parents[1] / "data" / "traces"
TYPES = {
    "NetworkServiceRegistry": (NetworkService, NetworkServiceQuery, NetworkServiceResponse),
    "NetworkServiceEndpointRegistry": (
        NetworkServiceEndpoint,
        NetworkServiceEndpointQuery,
        NetworkServiceEndpointResponse,
    ),
}
BUDGET = 15.0
"""Deadline of the recorded calls."""
CLOSE = 2.0
"""Seconds by which a time may differ."""


@dataclass
class Recorded:
    """One call: when it came, what was said, what was answered and when."""

    at: float
    service: str
    verb: str
    timeout: float | None
    request: object = None
    answers: list[tuple[float, object]] = field(default_factory=list)
    status: str = ""


def conversation(name: str) -> tuple[float, list[Recorded]]:
    """Return the wall time of t = 0 and the calls, in order."""
    lines = (TRACES / f"{name}.jsonl").read_text().splitlines()
    header, *events = map(json.loads, lines)
    calls: dict[int, Recorded] = {}
    for event in events:
        kind = event["ev"]
        if kind == "request":
            _, service, verb = event["method"].split("/")
            timeouts = [value for key, value in event["metadata"] if key == "grpc-timeout"]
            timeout = float(timeouts[0].removesuffix("m")) / 1000 if timeouts else None
            calls[event["call"]] = Recorded(event["t"], service.split(".")[1], verb, timeout)
        elif kind == "message":
            call = calls[event["call"]]
            entry, query, response = TYPES[call.service]
            body = base64.b64decode(event["raw"])
            if event["dir"] == ">":
                call.request = (query if call.verb == "Find" else entry).FromString(body)
            elif call.verb != "Unregister":
                answer = (response if call.verb == "Find" else entry).FromString(body)
                call.answers.append((event["t"], answer))
        elif kind == "trailers":
            calls[event["call"]].status = event["status_name"]
    recorded_at = datetime.fromisoformat(header["recorded_at"]).timestamp()
    return recorded_at, list(calls.values())


async def ask(registry: Chain, recorded: Recorded, answers: list[tuple[float, object]]) -> None:
    """Put one recorded call to our registry and note what it answers, and when."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(recorded.at - loop.time())
    call = Call() if recorded.timeout is None else Call().within(recorded.timeout)
    if recorded.verb == "Register":
        answers.append((loop.time(), await registry.register(call, recorded.request)))
    elif recorded.verb == "Unregister":
        await registry.unregister(call, recorded.request)
    else:
        async for item in registry.find(call, recorded.request):
            answers.append((loop.time(), item))  # noqa: PERF401 - a watch does not end


def same(ours: object, theirs: object) -> None:
    """Compare two answers; times may differ by :data:`CLOSE`."""
    assert getattr(ours, "deleted", None) == getattr(theirs, "deleted", None)
    mine, other = (content_of(m) if hasattr(m, "deleted") else m for m in (ours, theirs))
    for stamp in ("expiration_time", "initial_registration_time"):
        if isinstance(other, NetworkServiceEndpoint):
            assert mine.HasField(stamp) == other.HasField(stamp)
            assert seconds(getattr(mine, stamp)) == pytest.approx(seconds(getattr(other, stamp)), abs=CLOSE)
            mine.ClearField(stamp)
            other.ClearField(stamp)
    mine.ClearField("path_ids")
    other.ClearField("path_ids")
    assert mine == other


def early(answer: object) -> bool:
    """Whether Go took an entry away a whole deadline before its time, though that was most of its life.

    Ours never does so before three quarters of a life, or what registers again at two thirds would flap.
    """
    if not isinstance(answer, NetworkServiceEndpointResponse) or not answer.deleted:
        return False
    entry = content_of(answer)
    life = seconds(entry.expiration_time) - seconds(entry.initial_registration_time)
    return 0 < life < BUDGET * 4 - CLOSE


def by_name(answers: list[tuple[float, object]]) -> list[tuple[float, object]]:
    """Order what is there at first, which Go tells in any order; the rest by time."""
    return sorted(answers, key=lambda pair: (round(pair[0]), str(pair[1])[:60]))


@pytest.fixture(params=["memory", "sqlite"])
def make(request, tmp_path) -> Iterator[object]:
    if request.param == "memory":
        yield lambda clock: memory_registry(clock=clock)
    else:
        with RegistryFile(tmp_path / "registry.db") as file:
            yield lambda clock: sqlite_registry(file, clock=clock)


@pytest.mark.parametrize("name", ["registry-find", "registry-watch", "registry-expiration"])
def test_ours_answers_what_go_answered(make, name):
    """Each Register, Find, watch and Unregister gets the same answers, and changes come at the same time."""
    recorded_at, calls = conversation(name)
    calls = [call for call in calls if call.status != "PERMISSION_DENIED"]

    async def main():
        registry = make(VirtualClock(recorded_at))
        outcomes = [[] for _ in calls]
        async with registry.running():
            tasks = [
                asyncio.ensure_future(ask(registry, call, outcome))
                for call, outcome in zip(calls, outcomes, strict=True)
            ]
            await asyncio.sleep(max(call.at for call in calls) + 0.2)
            for task, call in zip(tasks, calls, strict=True):
                watching = call.verb == "Find" and call.request.watch
                assert task.done() is not watching
                if watching:
                    task.cancel()
                else:
                    task.result()
            await asyncio.wait(tasks)
        for call, outcome in zip(calls, outcomes, strict=True):
            expected = [(then, theirs) for then, theirs in call.answers if not early(theirs)]
            assert len(outcome) == len(expected), call
            for (when, ours), (then, theirs) in zip(by_name(outcome), by_name(expected), strict=True):
                same(ours, theirs)
                assert when == pytest.approx(then, abs=0.5)

    run(main())


@pytest.mark.parametrize("kind", ["service", "endpoint"])
def test_a_query_without_a_body_is_answered(make, kind):
    """The message that ends the Go registry gets an answer from ours: everything there is, here nothing."""
    _, (recorded,) = conversation(f"find-without-body-{kind}-registry")

    async def main():
        registry = make(VirtualClock())
        async with registry.running():
            assert [item async for item in registry.find(Call(), recorded.request)] == []

    run(main())
