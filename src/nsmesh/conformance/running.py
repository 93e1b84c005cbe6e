"""Runs cases, one after another, and says how each went."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from nsmesh.conformance import find, health, monitor, registration, requests, selection, tokens, tunnels
from nsmesh.conformance.case import Case, Deviation, Result, Skipped
from nsmesh.conformance.world import World
from nsmesh.core.errors import MeshError, NotFound

LIMIT = 30.0
"""Seconds that a case may take."""

CASES: tuple[Case, ...] = tuple(
    case
    for module in (health, find, registration, tokens, requests, monitor, selection, tunnels)
    for case in module.GROUP.cases
)
"""All cases, in the order in which they run."""


def chosen(names: Sequence[str]) -> list[Case]:
    """Return the cases of these names or groups, all for none; raises NotFound for one that is neither."""
    for name in names:
        if not any(_is(case, name) for case in CASES):
            raise NotFound(f"there is no case {name}", remedy="list them with: nsm conformance list")
    return [case for case in CASES if not names or any(_is(case, name) for name in names)]


def _is(case: Case, name: str) -> bool:
    return case.name == name or case.name.startswith(f"{name}/")


async def run(world: World, cases: Sequence[Case]) -> AsyncIterator[Result]:
    """Run the cases; yield each result as it is known."""
    for case in cases:
        begun = time.monotonic()
        verdict, seen = await _one(world, case)
        yield Result(case, verdict, seen, time.monotonic() - begun)


async def _one(world: World, case: Case) -> tuple[str, str]:
    try:
        async with asyncio.timeout(LIMIT):
            return "pass", await case.check(world)
    except Deviation as error:
        return "fail", str(error)
    except Skipped as error:
        return "skip", str(error)
    except MeshError as error:
        return "fail", f"{error.status.name}: {error}"
    except TimeoutError:
        return "fail", f"not done after {LIMIT:g} s"
