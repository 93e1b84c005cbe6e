"""Keeping switches alive: a daemon of theirs that dies is started again at once, without a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.core.scope import Scope
from nsmesh.datapath.ovs_callers import Callers
from nsmesh.datapath.ovs_switch import Switch
from nsmesh.datapath.ovs_switches import Switches
from nsmesh.datapath.ovs_vigil import watching

log = structlog.get_logger()

LOOK = 1.0
"""Seconds between two looks at which switches there are."""


@asynccontextmanager
async def keeping(switches: Switches) -> AsyncIterator[None]:
    """Keep the daemons of a node's switches running while the block runs; they stay when it ends.

    Those that come are kept from then on, and those that have had no wire for a while are ended. Raises what
    :meth:`Switch.ensure` raises where the first one cannot be started at first.
    """
    await switches.first.ensure()
    async with Scope("ovs") as scope:
        _keep_one(scope, switches, switches.first)
        scope.spawn(_tend(scope, switches), name="switches")
        yield


def _keep_one(scope: Scope, switches: Switches, switch: Switch) -> list[asyncio.Task[None]]:
    callers = Callers(switch.ports, switch.database, scope.clock.monotonic)
    return [
        scope.spawn(switch.keep(), name="switch"),
        scope.spawn(callers.keep(), name="memif endpoints"),
        scope.spawn(_keep_spares(switch), name="ports in advance"),
        scope.spawn(watching(switch, switches.taken_out), name="what others take out"),
    ]


async def _keep_spares(switch: Switch) -> None:
    with suppress(MeshError):
        await switch.ensure()
    await switch.spares.keep()


async def _tend(scope: Scope, switches: Switches) -> None:
    """Keep the switches beside the first one for ever."""
    kept: dict[int, list[asyncio.Task[None]]] = {}
    while True:
        switches.due.clear()
        coming = switches.begin()
        for number, switch in switches.more.items():
            if number not in kept:
                kept[number] = _keep_one(scope, switches, switch)
        if coming:
            scope.spawn(_open(switches, coming), name="another switch")
        for number in switches.idle():
            tasks = kept.pop(number, [])
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            try:
                await switches.end(number)
            except MeshError as error:
                log.warning("a switch without wires does not end", number=number, error=str(error))
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                await switches.due.wait()


async def _open(switches: Switches, number: int) -> None:
    try:
        await switches.open(number)
    except MeshError as error:
        log.warning("another switch does not start", number=number, error=str(error))
