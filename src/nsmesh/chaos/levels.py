"""What a mesh takes of a machine: memory, descriptors and threads of processes, what it has in the kernel."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nsmesh.chaos.ground import Ground
from nsmesh.core.errors import NotFound
from nsmesh.datapath import netns, programs

GROWTH = 6 << 20
"""Bytes by which a process may be larger than its like at the start: a young Python still fills its pools."""
SPARE = 3
"""Descriptors more than at the start that are no leak: connections to neighbours that have just come back."""
POOL = min(32, (os.cpu_count() or 1) + 4)
"""Threads that asyncio starts for what blocks, one by one as they are needed, and keeps."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one process holds. ``memory``: bytes, shared ones by their part (PSS)."""

    pid: int
    memory: int
    descriptors: int
    threads: int


@dataclass(frozen=True, slots=True)
class Level:
    """What a mesh takes, at one moment. ``kernel``: namespaces, interfaces and addresses, as text."""

    processes: Mapping[str, Held]
    kernel: frozenset[str]


def held(pid: int) -> Held | None:
    """Return what a process holds, or None where there is none of that pid any more."""
    place = Path(f"/proc/{pid}")
    try:
        lines = (place / "smaps_rollup").read_text().splitlines()
        memory = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        return Held(pid, memory, len(os.listdir(place / "fd")), len(os.listdir(place / "task")))  # noqa: PTH208 - bare names are enough
    except (OSError, StopIteration):
        return None


async def processes(ground: Ground) -> dict[str, Held]:
    """Return what the daemon, its roles and its endpoints hold, by name; raises MeshError."""
    data = await ground.status()
    pids = {row["name"]: row["pid"] for row in data["endpoints"]}
    pids |= {"-".join(filter(None, (row["role"], row["node"]))): row["pid"] for row in data["roles"]}
    with suppress(NotFound):
        pids["daemon"] = await ground.pid("daemon")
    found = {name: held(pid) for name, pid in pids.items() if pid}
    return {name: one for name, one in found.items() if one is not None}


async def level(ground: Ground) -> Level:
    """Return what a mesh takes now; raises MeshError."""
    mesh = ground.paths.mesh
    names = [place.rpartition("/")[2] for place in netns.named()]
    kernel: set[str] = set()
    for name in names:
        if not name.startswith((f"{mesh}.", f"{mesh}-")):
            continue
        kernel.add(f"namespace {name}")
        out = (await programs.run("ip", "-n", name, "-o", "address")).out
        kernel |= {f"address {' '.join(line.split()[1:4])} in {name}" for line in out.splitlines()}
        out = (await programs.run("ip", "-n", name, "-o", "link")).out
        kernel |= {f"interface {line.split()[1].strip(':')} in {name}" for line in out.splitlines()}
    return Level(await processes(ground), frozenset(kernel))


def unlevel(before: Level, after: Level) -> list[str]:
    """Return in words what is not level with the start."""
    found = [f"{what} is new" for what in sorted(after.kernel - before.kernel)]
    found += [f"{what} is gone" for what in sorted(before.kernel - after.kernel)]
    for name, old in before.processes.items():
        new = after.processes.get(name)
        if new is None:
            found.append(f"{name} is gone")
            continue
        if new.descriptors > old.descriptors + SPARE:
            found.append(f"{name} has {new.descriptors} descriptors, before {old.descriptors}")
        if new.threads > max(old.threads, 1 + POOL):
            found.append(f"{name} has {new.threads} threads, before {old.threads}")
        if new.memory > old.memory + GROWTH:
            found.append(f"{name} holds {new.memory >> 10} KiB, before {old.memory >> 10} KiB")
    return found + [f"{name} is new" for name in sorted(after.processes.keys() - before.processes.keys())]


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory (bytes) of one process at a time (seconds)."""

    pid: int
    time: float
    memory: int


def slope(samples: Sequence[Sample], youth: float) -> float:
    """Return by how many bytes a second the processes of one role grow; NaN where too little was seen.

    Each process has a level of its own, all have the slope in common (least squares); what a process was
    within ``youth`` seconds of its first sample is left out.
    """
    lives: dict[int, list[Sample]] = defaultdict(list)
    for one in samples:
        lives[one.pid].append(one)
    above = below = 0.0
    for life in lives.values():
        grown = [one for one in life if one.time >= life[0].time + youth]
        if len(grown) < 2:
            continue
        middle = sum(one.time for one in grown) / len(grown)
        mean = sum(one.memory for one in grown) / len(grown)
        above += sum((one.time - middle) * (one.memory - mean) for one in grown)
        below += sum((one.time - middle) ** 2 for one in grown)
    return above / below if below else math.nan
