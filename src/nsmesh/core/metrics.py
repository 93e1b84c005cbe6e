"""What a process counts: declared beside what it is about, read by whoever exports it.

A counter is a dictionary that is added to: it costs a fraction of a microsecond and is always on. Gauges are
read when somebody asks. What takes more (latencies) is only counted where :mod:`nsmesh.core.observing` has
been told to.
"""

from __future__ import annotations

import inspect
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

Labels = tuple[str, ...]
Values = Mapping[Labels, float]
Reading = Callable[[], Values | Awaitable[Values]]

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
"""Upper bounds of the buckets of a latency, seconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One number: the suffix of its name (``_total``, ``_bucket``, ...), its labels, its value."""

    suffix: str
    labels: Mapping[str, str]
    value: float


class Metric:
    """Base of all: a name in the form ``nsm_<element>_<what>``, a sentence, the names of its labels."""

    kind = ""

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:  # noqa: A002 - its name everywhere
        if name in DECLARED:
            raise ValueError(f"there is a metric {name} already")
        self.name = name
        self.help = help
        self.labels = labels
        DECLARED[name] = self

    async def samples(self) -> list[Sample]:
        """Return the numbers as they are now."""
        raise NotImplementedError

    def _named(self, labels: Labels) -> dict[str, str]:
        return dict(zip(self.labels, labels, strict=True))


DECLARED: dict[str, Metric] = {}
"""All metrics of this process, by name; modules add theirs when they are imported."""


class Counter(Metric):
    """Goes up. Its exported name ends in ``_total``."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:  # noqa: A002 - likewise
        super().__init__(name, help, labels)
        self.values: dict[Labels, float] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        """Count; ``labels`` are the values of the labels, in order."""
        self.values[labels] = self.values.get(labels, 0) + by

    async def samples(self) -> list[Sample]:
        """See the base."""
        return [Sample("_total", self._named(labels), value) for labels, value in self.values.items()]


class Gauge(Metric):
    """Read when it is asked for, from everything that has it; equal labels are added up."""

    kind = "gauge"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:  # noqa: A002 - likewise
        super().__init__(name, help, labels)
        self._readings: list[Reading] = []

    @contextmanager
    def reading(self, read: Reading) -> Iterator[None]:
        """Ask ``read`` too while the block runs."""
        self._readings.append(read)
        try:
            yield
        finally:
            self._readings.remove(read)

    async def samples(self) -> list[Sample]:
        """See the base."""
        total: dict[Labels, float] = {}
        for read in tuple(self._readings):
            found = read()
            values = await found if inspect.isawaitable(found) else found
            for labels, value in values.items():
                total[labels] = total.get(labels, 0) + value
        suffix = "_total" if self.kind == "counter" else ""
        return [Sample(suffix, self._named(labels), value) for labels, value in total.items()]


class ReadCounter(Gauge):
    """Goes up, and is counted elsewhere (by the kernel, say)."""

    kind = "counter"


class _Buckets:
    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0


class Histogram(Metric):
    """How long something took, seconds, in buckets."""

    kind = "histogram"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:  # noqa: A002 - likewise
        super().__init__(name, help, labels)
        self._known: dict[Labels, _Buckets] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        """Count one."""
        known = self._known.get(labels)
        if known is None:
            known = self._known[labels] = _Buckets()
        known.counts[bisect_left(BOUNDS, seconds)] += 1
        known.sum += seconds

    async def samples(self) -> list[Sample]:
        """See the base."""
        found = []
        for labels, buckets in self._known.items():
            named, total = self._named(labels), 0
            for bound, count in zip((*map(str, BOUNDS), "+Inf"), buckets.counts, strict=True):
                total += count
                found.append(Sample("_bucket", {**named, "le": bound}, total))
            found += [Sample("_count", named, total), Sample("_sum", named, buckets.sum)]
        return found
