"""A peer that dials anew for each of its calls, as those in Go do: from the dial to the first answer.

Run as root: python bench/run.py anew. Each time: a new TLS connection to the manager, one Request over it,
its Close, and an end to the connection. The time is that from the dial to the answer; the processor time is
that of everything. Beside it stands the same Request over the connection that stays.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import meshes
from common import spaces
from meshes import APART_TLS, Phase
from report import Report, row

NAME = "anew"
NEAR = 8


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure both ways in turn."""
    rounds, count = (1, 4) if short else (8, 50)
    anew: list[Phase] = []
    kept: list[Phase] = []
    with ExitStack() as stack:
        *near, far = stack.enter_context(spaces(NEAR + 1))
        mesh = stack.enter_context(meshes.running(APART_TLS, near, far))
        mesh.do("anew", mesh.fresh(count))
        mesh.settle()
        for _ in range(rounds):
            anew.append(mesh.do("anew", mesh.fresh(count)))
            mesh.settle()
            numbers = mesh.fresh(count)
            first = mesh.do("request", numbers)
            last = mesh.do("close", numbers)
            cpu = {role: first.cpu[role] + last.cpu[role] for role in first.cpu}
            kept.append(Phase(count, first.wall, first.took, cpu))
    base = [phase.cpu_each for phase in kept]
    report = Report()
    for what, phases in (("on the one that stays", kept), ("on a new one", anew)):
        wall = [time for phase in phases for time in phase.wall]
        cpu = [phase.cpu_each for phase in phases]
        report.rows.append(row("Request and Close", what, wall, cpu, base, to="on the one that stays"))
    return report
