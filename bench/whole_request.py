"""What a whole Request costs: through client, manager, forwarder and endpoint, beside the bare netlink floor.

Run as root: python bench/run.py request. All meshes stand side by side and take turns, round after round, so
what disturbs the machine disturbs all of them. The floor sends the messages of one wire, built beforehand:
what is beyond its cost is the control path's. What the kernel permits is the same messages and those that
delete the wires, from as many threads as Requests are in flight.
"""

from __future__ import annotations

import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import meshes
from common import spaces
from meshes import FORMS, Mesh, Phase
from netlink_floor import Floor, wire
from report import Details, Report, Row, duration, row

NAME = "request"
NEAR = 8
IN_FLIGHT = (1, 8, 32, 64)
FLOOR = "bare netlink"
BARE = (8, 32)
"""Threads that make and delete bare wires at a time."""


@dataclass(slots=True)
class Found:
    """All rounds of one mesh: phases by (verb, in flight)."""

    phases: defaultdict[tuple[str, int], list[Phase]] = field(default_factory=lambda: defaultdict(list))

    def cpu(self, verb: str, in_flight: int) -> list[float]:
        """Return the CPU time of one operation, for each round."""
        return [phase.cpu_each for phase in self.phases[verb, in_flight]]

    def in_kernel(self, verb: str, in_flight: int) -> float:
        """Return the part of the CPU time that was spent in the kernel."""
        phases = self.phases[verb, in_flight]
        return sum(phase.kernel for phase in phases) / sum(sum(phase.cpu.values()) for phase in phases)

    def by_role(self, verb: str, in_flight: int) -> dict[str, float]:
        """Return the CPU time that each role spent on one operation."""
        phases = self.phases[verb, in_flight]
        count = sum(phase.count for phase in phases)
        return {role: sum(phase.cpu[role] for phase in phases) / count for role in phases[0].cpu}


def run(*, short: bool, profiles: Path | None = None) -> Report:
    """Measure all forms of a mesh and the floor, in turn."""
    rounds, single, many, warm = (1, 4, 16, 16) if short else (10, 50, 192, 64)
    floor: list[Phase] = []
    bare: dict[str, list[Phase]] = defaultdict(list)
    found = {form.name: Found() for form in FORMS}
    with ExitStack() as stack:
        standing = []
        for form in FORMS:
            *near, far = stack.enter_context(spaces(NEAR + 1))
            folder = _folder(profiles, form.name)
            standing.append(stack.enter_context(meshes.running(form, near, far, folder)))
        for mesh in standing:  # what is imported or opened at first use is not what is measured
            _round(mesh, Found(), single, warm)
        for number in range(rounds):
            floor.append(_floor(single))
            for threads in BARE:
                for what, phase in _permitted(max(single, 2 * threads), threads).items():
                    bare[f"{what}, {threads} in flight"].append(phase)
            for mesh in standing[number % len(standing) :] + standing[: number % len(standing)]:
                _round(mesh, found[mesh.form.name], single, many)
    return _report(floor, bare, found)


def _folder(profiles: Path | None, name: str) -> Path | None:
    if profiles is None:
        return None
    folder = profiles / name.replace(" ", "-").replace(",", "")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _round(mesh: Mesh, found: Found, single: int, many: int) -> None:
    for in_flight in IN_FLIGHT:
        numbers = mesh.fresh(single if in_flight == 1 else many)
        for verb in ("request", "refresh", "close"):
            found.phases[verb, in_flight].append(mesh.do(verb, numbers, in_flight))


def _floor(count: int) -> Phase:
    """Make wires with messages that are ready."""
    wall = []
    with spaces(2) as (a, b):
        floor = Floor([wire("f", number, a, b) for number in range(count)], a, b)
        cpu = time.process_time()
        for number in range(count):
            began = time.perf_counter()
            floor.send(number)
            wall.append(time.perf_counter() - began)
        cpu = time.process_time() - cpu
        floor.delete()
    return Phase(count, wall, sum(wall), {FLOOR: cpu})


def _permitted(count: int, threads: int) -> dict[str, Phase]:
    """Make wires of payload IP, then delete them, with messages that are ready, several threads at a time."""
    wall: list[float] = []
    share = count // threads

    def work(floor: Floor) -> None:
        for number in range(share):
            began = time.perf_counter()
            floor.send(number)
            wall.append(time.perf_counter() - began)

    with spaces(threads + 1) as (*near, far), ThreadPoolExecutor(threads) as pool:
        floors = []
        for one, space in enumerate(near):
            wires = [wire(f"p{one}-", one * share + number, space, far) for number in range(share)]
            floors.append(Floor([replace(each, payload="IP") for each in wires], space, far))
        cpu, began = time.process_time(), time.perf_counter()
        list(pool.map(work, floors))
        made = Phase(len(wall), wall, time.perf_counter() - began, {FLOOR: time.process_time() - cpu})
        list(pool.map(Floor.delete, floors))
        both = replace(made, took=time.perf_counter() - began, cpu={FLOOR: time.process_time() - cpu})
    return {"wire of payload IP": made, "the same and its deletion": both}


def _report(floor: list[Phase], bare: dict[str, list[Phase]], found: dict[str, Found]) -> Report:
    report = Report()
    base = [phase.cpu_each for phase in floor]
    report.rows.append(
        row("wire", FLOOR, [time for phase in floor for time in phase.wall], base, base, to=FLOOR)
    )
    for what, phases in bare.items():
        rate = sum(phase.count for phase in phases) / sum(phase.took for phase in phases)
        cpu = [phase.cpu_each for phase in phases]
        report.rows.append(row(what, FLOOR, [], cpu, base, to=FLOOR, per_second=rate))
    for name, one in found.items():
        for in_flight in IN_FLIGHT:
            what = "Request" if in_flight == 1 else f"Request, {in_flight} in flight"
            report.rows.append(_row(what, name, one, ("request", in_flight), base, FLOOR))
        own = one.cpu("request", 1)
        report.rows.append(_row("refresh", name, one, ("refresh", 1), own, "its Request"))
        report.rows.append(_row("Close", name, one, ("close", 1), own, "its Request"))
    report.details.append(_by_role(found))
    return report


def _row(what: str, way: str, found: Found, key: tuple[str, int], base: list[float], to: str) -> Row:
    phases = found.phases[key]
    wall = [time for phase in phases for time in phase.wall]
    rate = len(wall) / sum(phase.took for phase in phases)
    return row(what, way, wall, found.cpu(*key), base, to=to, per_second=rate)


def _by_role(found: dict[str, Found]) -> Details:
    """Return who spends the CPU time of one operation."""
    rows = []
    for name, one in found.items():
        for verb, in_flight in (("request", 1), ("request", 8), ("refresh", 1), ("close", 1)):
            roles = one.by_role(verb, in_flight)
            cells = [
                duration(roles[role]) if role in roles else "" for role in (*meshes.ROLES, "one process")
            ]
            kernel = f"{one.in_kernel(verb, in_flight):.0%}"
            rows.append((name, verb, str(in_flight), *cells, duration(sum(roles.values())), kernel))
    head = ("CPU time by role", "verb", "in flight", *meshes.ROLES, "one process", "sum", "in the kernel")
    return Details("who spends the CPU time of one operation", head, rows)
