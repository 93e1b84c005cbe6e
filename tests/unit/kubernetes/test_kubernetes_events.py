"""Events of Kubernetes: few of them, however often it happens."""

from __future__ import annotations

from nsmesh.core.clock import Clock
from nsmesh.kubernetes.events import BURST, CALM, SIMILAR, WITHIN, About, Recorder

POD = About("Pod", "space", "pod", "uid-1")


class Time(Clock):
    """Time that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


def recorder() -> tuple[Recorder, Time]:
    clock = Time()
    marks = iter(range(10_000))
    return Recorder("nsmesh-nsmgr", "node-1", clock, lambda: str(next(marks))), clock


def test_the_same_once_more_is_a_count():
    """One object; its count grows by what happened meanwhile, no more often than every ten seconds."""
    record, clock = recorder()
    verb, body = record.record(POD, "Warning", "WireRefused", "no")
    assert (verb, body["count"], body["involvedObject"]["uid"]) == ("POST", 1, "uid-1")
    assert body["metadata"] == {"name": "pod.0", "namespace": "space"}
    for _ in range(7):
        clock.seconds += 0.2
        assert record.record(POD, "Warning", "WireRefused", "no") is None
    clock.seconds += CALM
    verb, patch = record.record(POD, "Warning", "WireRefused", "no")
    assert (verb, patch["count"], patch["metadata"]["name"]) == ("PATCH", 9, "pod.0")
    clock.seconds += WITHIN
    assert record.record(POD, "Warning", "WireRefused", "no")[0] == "POST"


def test_many_of_one_reason_become_one():
    """Beyond ten different ones within ten minutes there is one that stands for the rest; others are told."""
    record, _ = recorder()
    told = [record.record(POD, "Normal", "WireUp", f"in {number} ms") for number in range(SIMILAR + 5)]
    messages = [body["message"] for _, body in filter(None, told)]
    assert len(messages) == SIMILAR + 1
    assert "and more of this reason" in messages[-1]
    assert record.record(POD, "Normal", "WireClosed", "closed")[1]["message"] == "closed"


def test_an_object_has_a_budget():
    """A pod that goes up and down costs so many calls, then one each five minutes; others keep theirs."""
    record, clock = recorder()
    made = [record.record(POD, "Normal", f"R{number}", "x") for number in range(BURST + 10)]
    assert sum(one is not None for one in made) == BURST
    other = About("Pod", "space", "other", "uid-2")
    assert record.record(other, "Normal", "R", "x") is not None
    clock.seconds += 301
    assert record.record(POD, "Normal", "late", "x") is not None
    assert record.record(POD, "Normal", "later", "x") is None


def test_what_was_not_written_is_recorded_again():
    """A first one is made anew, a count goes on; one whose object is gone is made, and costs no budget."""
    record, clock = recorder()
    told = (POD, "Warning", "WireRefused", "no")
    for _ in range(BURST + 5):
        assert record.record(*told)[0] == "POST"
        record.failed(*told, gone=False)
    assert record.record(*told)[1]["count"] == 1
    clock.seconds += CALM
    for _ in range(BURST + 5):
        verb, patch = record.record(*told)
        assert (verb, patch["count"]) == ("PATCH", 2)
        record.failed(*told, gone=False)
    assert record.record(*told)[1]["count"] == 2
    clock.seconds += CALM
    assert record.record(*told)[0] == "PATCH"
    record.failed(*told, gone=True)
    assert record.record(*told)[0] == "POST"


def test_an_event_that_was_never_made_is_never_patched():
    """Also where it happened more than once before anything could be written."""
    record, clock = recorder()
    for number in range(BURST):
        record.record(POD, "Normal", f"R{number}", "x")
    told = (POD, "Warning", "WireRefused", "no")
    assert record.record(*told) is None  # no budget is left
    clock.seconds += 301
    verb, body = record.record(*told)
    assert (verb, body["count"]) == ("POST", 2)
    record.failed(*told, gone=False)
    verb, body = record.record(*told)
    assert (verb, body["count"]) == ("POST", 2)
