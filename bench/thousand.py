"""A thousand connections at once, three times: what the last costs beside the first, and what is left.

Run as root: python bench/run.py thousand. For each form of a mesh: all are set up one after the other,
looked at, closed, and everything is counted again.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import meshes
from common import spaces
from meshes import APART_TLS, ONE, UP, Form, Mesh, Phase
from processes import Memory
from report import Details, Report, Row, row, size

from nsmesh.datapath import netns

NAME = "thousand"
NEAR = 20
ROUNDS = 3
FORMS = (APART_TLS, UP, ONE)


@dataclass(frozen=True, slots=True)
class Held:
    """What a mesh holds at one moment. ``tasks`` and ``timers`` are those of the process that drives it."""

    when: str
    interfaces: int
    addresses: int
    namespaces: int
    tasks: int
    timers: int
    descriptors: dict[str, int]
    memory: dict[str, Memory]


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure each form by itself: a thousand wires of one are enough for a kernel."""
    count, block = (30, 5) if short else (1000, 50)
    report = Report()
    for form in FORMS:
        with ExitStack() as stack:
            *near, far = stack.enter_context(spaces(NEAR + 1))
            report.add(_form(stack.enter_context(meshes.running(form, near, far)), count, block))
    return report


def _form(mesh: Mesh, count: int, block: int) -> Report:
    numbers = mesh.fresh(2 * block)  # what is imported or opened at first use is not what is measured
    for verb in ("request", "close"):
        mesh.do(verb, numbers)
    held = [_held(mesh, "before")]
    first: list[Phase] = []
    last: list[Phase] = []
    for turn in range(ROUNDS):
        numbers = mesh.fresh(count)
        first.append(mesh.do("request", numbers[:block]))
        mesh.do("request", numbers[block:-block])
        last.append(mesh.do("request", numbers[-block:]))
        held.append(_held(mesh, f"{count} up, round {turn + 1}"))
        mesh.do("close", numbers, 8)
        held.append(_held(mesh, f"all closed, round {turn + 1}"))
    report = Report(rows=[growth(mesh.form, "first", first, first), growth(mesh.form, "last", last, first)])
    report.details.append(_table(mesh.form, held))
    report.details.append(_per_connection(mesh.form, held, count))
    return report


def growth(form: Form, which: str, phases: list[Phase], base: list[Phase]) -> Row:
    """Return the row of blocks of Requests, beside those of ``base``."""
    wall = [time for phase in phases for time in phase.wall]
    cpu, to = [one.cpu_each for one in phases], [one.cpu_each for one in base]
    return row(f"the {which} {phases[0].count} of many", form.name, wall, cpu, to, to="the first")


def _held(mesh: Mesh, when: str) -> Held:
    figures = mesh.ask(verb="figures")
    paths = (*mesh.spaces, mesh.far)
    prefix = Path(mesh.far).name.rpartition("-")[0]
    return Held(
        when,
        mesh.interfaces(),
        sum(netns.call_in(path, _addresses) for path in paths),
        sum(Path(path).name.startswith(prefix) for path in netns.named()),
        figures["tasks"],
        figures["timers"],
        {role: process.descriptors() for role, process in mesh.processes.items()},
        mesh.memory(),
    )


def _addresses() -> int:
    """Return how many IPv4 addresses the namespace has that this thread is in."""
    return Path("/proc/thread-self/net/fib_trie").read_text().count("/32 host LOCAL")


def _table(form: Form, held: list[Held]) -> Details:
    roles = tuple(held[0].memory)
    head = (
        f"{form.name}: what is held",
        *("interfaces", "addresses", "namespaces", "tasks", "timers"),
        *(f"{role} fds" for role in roles),
        *(f"{role} PSS" for role in roles),
    )
    rows = []
    for one in held:
        counts = (one.interfaces, one.addresses, one.namespaces, one.tasks, one.timers)
        descriptors = (one.descriptors[role] for role in roles)
        memory = (size(one.memory[role].pss) for role in roles)
        rows.append((one.when, *map(str, counts), *map(str, descriptors), *memory))
    return Details("everything back where it was", head, rows)


def _per_connection(form: Form, held: list[Held], count: int) -> Details:
    """Return what one connection adds to each process: in the first round, and in the others."""
    rows = []
    for role in held[0].memory:
        up, down = held[1::2], held[2::2]
        fresh = held[1].memory[role].pss - held[0].memory[role].pss
        kept = statistics.median(one.memory[role].pss for one in down) - held[0].memory[role].pss
        most = max(one.memory[role].pss for one in up) - held[0].memory[role].pss
        rows.append((role, size(fresh / count), size(most / count), size(kept / count)))
    head = (f"{form.name}: memory per connection", "first round", "most", "kept after Close")
    return Details("what one connection takes (PSS)", head, rows)
