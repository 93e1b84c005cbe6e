"""Runs scenarios of several kinds at a time, each part in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nsmesh.chaos.scenarios import HOLD, Wanted
from nsmesh.chaos.turns import Turns
from nsmesh.core.errors import Internal

TOGETHER = 8
"""Scenarios that share a mesh, at the most: while one of its processes rests, another can be harmed."""
RESTING = 3
"""Meshes to each one that is harmed: most of the time one rests until its processes count as steady again."""
_EACH = 3.0
"""Seconds that one repetition takes, about."""


class Part(NamedTuple):
    """Scenarios that one process runs, on meshes of one kind."""

    situation: str
    wanted: tuple[Wanted, ...]

    @property
    def length(self) -> float:
        """How long it takes, about, in seconds."""
        return sum(one.times * (_EACH + HOLD.get(one.scenario.what, 0.0)) for one in self.wanted)


def parts(wanted: Mapping[str, Sequence[Wanted]], workers: int = 1) -> list[Part]:
    """Return what is wanted, by situation, in parts, the longest first: none is alone at the end.

    There are as many as ``workers``, about, where there are scenarios enough: none shall have nothing to do.
    """
    found = []
    total = sum(map(len, wanted.values()))
    for situation, some in wanted.items():
        for layout in dict.fromkeys(one.scenario.layout for one in some):
            mine = [one for one in some if one.scenario.layout == layout]
            pieces = max(-(-len(mine) // TOGETHER), min(len(mine), len(mine) * workers // total))
            found += [Part(situation, tuple(mine[number::pieces])) for number in range(pieces)]
    return sorted(found, key=lambda part: -part.length)


async def run(wanted: Mapping[str, Sequence[Wanted]], many: int) -> list[dict[str, Any]]:
    """Run all, harm ``many`` meshes at a time, and return rows in the order in which they are wanted.

    Raises Internal where a part ends without rows; the others are ended then, and leave nothing.
    """
    waiting = parts(wanted, many * RESTING)
    rows: dict[tuple[str, str], dict[str, Any]] = {}

    async def work(turns: Path) -> None:
        while waiting:
            for row in await _one(waiting.pop(0), turns):
                rows[row["situation"], row["scenario"]] = row

    with tempfile.TemporaryDirectory(prefix="nsm-chaos-turns-") as folder:
        turns = Path(folder)
        Turns.make(turns, many)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(many * RESTING, len(waiting))):
                    group.create_task(work(turns))
        except* Internal as failed:
            raise failed.exceptions[0] from None
    return [rows[situation, one.name] for situation, some in wanted.items() for one in some]


async def _one(part: Part, turns: Path) -> list[dict[str, Any]]:
    """Run a part in a process, which takes its meshes away whatever becomes of us, short of a SIGKILL."""
    with tempfile.NamedTemporaryFile(prefix="nsm-chaos-rows-") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "nsmesh.cli.main", "chaos", "run"),
            *("--situation", part.situation, "--json", file.name, "--turns", str(turns)),
            *(f"{one.name}={one.times}" for one in part.wanted),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, who tell the others once
        )
        try:
            _, said = await process.communicate()
        finally:
            await asyncio.shield(_end(process))
        text = Path(file.name).read_text()
    if not text:
        raise Internal(
            f"a part of the run ended with {process.returncode}: {_last(said.decode().splitlines())}"
        )
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a part that still runs, by the way on which it takes its mesh away."""
    with contextlib.suppress(ProcessLookupError):
        if process.returncode is None:
            process.terminate()
    await process.wait()


def _last(lines: Iterable[str]) -> str:
    return next((line for line in reversed([*lines]) if line.strip()), "it did not say why")
