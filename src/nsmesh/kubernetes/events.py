"""Events: what happened to an object, in a sentence; few of them, however often it happens.

As client-go's recorder does it: the same once more is a higher count of the same event; many of one reason
become one that says so; and each object has a budget.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from nsmesh.core.clock import Clock
from nsmesh.kubernetes.client import Object

NORMAL, WARNING = "Normal", "Warning"
SIMILAR, WITHIN = 10, 600.0
"""Events of one reason on one object, within so many seconds, that are told one by one."""
BURST, REFILL = 25, 1 / 300
"""Calls for one object that may be made at once, and per second after that."""
REMEMBERED = 4096
"""Objects and events that are known; the oldest are forgotten first."""
CALM = 10.0
"""Seconds for which the count of an event is not raised again."""
LONGEST = 1024
"""Characters of a message that an API server takes."""


@dataclass(frozen=True, slots=True)
class About:
    """What an event is about."""

    kind: str
    namespace: str
    name: str
    uid: str


@dataclass(slots=True)
class _Told:
    name: str
    first: str
    count: int = 0
    last: float = 0.0
    written: float = float("-inf")
    before: float = float("-inf")
    """When it was written the time before, for a write that fails."""


@dataclass(slots=True)
class _Budget:
    left: float = BURST
    since: float = 0.0
    reasons: dict[tuple[str, str], tuple[float, set[str]]] = field(default_factory=dict)


class Recorder:
    """Makes events in the name of ``component`` on ``host``. Pure: what is to be written is returned."""

    def __init__(
        self, component: str, host: str, clock: Clock, mark: Callable[[], str] | None = None
    ) -> None:
        self._component = component
        self._host = host
        self._clock = clock
        self._mark = mark or (lambda: secrets.token_hex(8))
        self._told: OrderedDict[tuple[About, str, str], _Told] = OrderedDict()
        self._budgets: OrderedDict[About, _Budget] = OrderedDict()

    def record(self, about: About, kind: str, reason: str, message: str) -> tuple[str, Object] | None:
        """Return what is to be done for one more event: POST an object, or PATCH one; None: nothing."""
        now = self._clock.now()
        budget = self._budget(about, now)
        message = _combined(budget, kind, reason, message, now)[:LONGEST]
        told = self._told_of(about, reason, message, now)
        told.count += 1
        told.last = now
        if now - told.written < CALM or budget.left < 1:
            return None
        budget.left -= 1
        fresh = told.written == float("-inf")
        told.before, told.written = told.written, now
        if not fresh:
            return "PATCH", {
                "metadata": {"name": told.name, "namespace": about.namespace},
                "count": told.count,
                "lastTimestamp": _stamp(now),
            }
        return "POST", self._event(about, kind, reason, message, told, now)

    def failed(self, about: About, kind: str, reason: str, message: str, *, gone: bool) -> None:
        """Take back the last record of an event: it was not written, and may be recorded once more.

        ``gone``: the object that was to be patched is not there any more; the next one is made.
        """
        now = self._clock.now()
        budget = self._budget(about, now)
        budget.left = min(BURST, budget.left + 1)
        key = (about, reason, _combined(budget, kind, reason, message, now)[:LONGEST])
        told = self._told.get(key)
        if told is None:
            return
        told.count -= 1
        if gone or not told.count:
            del self._told[key]
        else:
            told.written = min(told.before, now - CALM)

    def _event(self, about: About, kind: str, reason: str, message: str, told: _Told, now: float) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": told.name, "namespace": about.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": about.kind,
                "namespace": about.namespace,
                "name": about.name,
                "uid": about.uid,
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": self._component, "host": self._host},
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": told.first,
            "lastTimestamp": _stamp(now),
            "count": told.count,
        }

    def _told_of(self, about: About, reason: str, message: str, now: float) -> _Told:
        key = (about, reason, message)
        told = self._told.get(key)
        if told is None or now - told.last >= WITHIN:
            told = self._told[key] = _Told(f"{about.name[:230]}.{self._mark()}", _stamp(now))
        self._told.move_to_end(key)
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return told

    def _budget(self, about: About, now: float) -> _Budget:
        budget = self._budgets.get(about)
        if budget is None:
            budget = self._budgets[about] = _Budget(since=now)
        self._budgets.move_to_end(about)
        while len(self._budgets) > REMEMBERED:
            self._budgets.popitem(last=False)
        budget.left = min(BURST, budget.left + (now - budget.since) * REFILL)
        budget.since = now
        return budget


def _combined(budget: _Budget, kind: str, reason: str, message: str, now: float) -> str:
    """Return the message, or where there were many of its reason, one that stands for all of them."""
    since, known = budget.reasons.get((kind, reason), (now, set()))
    if now - since >= WITHIN:
        since, known = now, set()
    if message not in known and len(known) >= SIMILAR:
        return f"({SIMILAR} and more of this reason within ten minutes) {reason}"
    known.add(message)
    budget.reasons[kind, reason] = since, known
    return message


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
