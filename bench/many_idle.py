"""Ten thousand connections at one manager that nobody uses: what they take, and when they are refreshed.

Run as root: python bench/run.py idle. The mesh is one process, its client another, and no wire is made: what
is looked at is what managers do for connections while nothing happens.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import meshes
from common import spaces
from meshes import SERVED, Mesh
from report import Details, Report, duration, row, size

NAME = "idle"
BUCKET = 10.0
"""Seconds over which refreshes are counted."""


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Set all up, leave them alone for a while, close them."""
    count, rest = (100, 1.0) if short else (10_000, 30.0)
    with ExitStack() as stack:
        near, far = stack.enter_context(spaces(2))
        mesh = stack.enter_context(meshes.running(SERVED, [near], far))
        warm = mesh.fresh(50)
        for verb in ("request", "close"):
            mesh.do(verb, warm, 8)
        before = mesh.memory()
        numbers = mesh.fresh(count)
        asked = mesh.do("request", numbers, 32)
        held = mesh.memory()
        idle = _idle(mesh, rest)
        due = mesh.ask(verb="figures")["due"]
        closed = mesh.do("close", numbers, 32)
    report = Report()
    for what, phase in (("Request", asked), ("Close", closed)):
        report.rows.append(row(f"{what}, {count} of them", SERVED.name, phase.wall, [phase.cpu_each]))
    rows = [
        (role, f"{idle[role] / rest:.2%}", size((held[role].pss - before[role].pss) / count)) for role in idle
    ]
    report.details.append(Details(f"{count} idle connections", ("process", "CPU", "PSS of each"), rows))
    report.details.append(_spread(due[-count:], count))
    return report


def _idle(mesh: Mesh, rest: float) -> dict[str, float]:
    """Return the processor time of each process while nobody asks for anything."""
    before = mesh.cpu()
    time.sleep(rest)
    after = mesh.cpu()
    return {role: after[role] - before[role] for role in before}


def _spread(due: list[float], count: int) -> Details:
    """Return how the refreshes of a client that has them all are spread."""
    buckets = Counter(int(moment // BUCKET) for moment in due)
    busiest = max(buckets.values())
    row = (duration(due[0]), duration(due[-1]), str(busiest), f"{busiest / BUCKET:.0f}")
    head = ("first in", "last in", f"most in {BUCKET:g} s", "per second then")
    return Details(f"when {count} connections are refreshed", head, [row])
