"""Keeping switches alive: a daemon of theirs that dies is started again at once, without a request."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.core.scope import Scope
from nsmesh.datapath.ovs_callers import Callers
from nsmesh.datapath.ovs_programs import running
from nsmesh.datapath.ovs_switch import PROGRAMS, Switch
from nsmesh.datapath.ovs_switches import Switches

log = structlog.get_logger()

PAUSE = 0.2
"""Seconds between two attempts to start what does not start."""
REST = 0.02
"""Seconds between two starts: a daemon that dies as soon as it runs shall not take the processor."""


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
        _keep_one(scope, switches.first)
        scope.spawn(_tend(scope, switches), name="switches")
        yield


def _keep_one(scope: Scope, switch: Switch) -> list[asyncio.Task[None]]:
    callers = Callers(switch.ports, scope.clock.monotonic)
    return [
        scope.spawn(_keep(switch), name="switch"),
        scope.spawn(callers.keep(), name="memif endpoints"),
        scope.spawn(_keep_spares(switch), name="ports in advance"),
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
                kept[number] = _keep_one(scope, switch)
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


async def _keep(switch: Switch) -> None:
    with suppress(MeshError):
        await switch.ensure()  # one that is just being started is not dead
    while True:
        dead = await _a_death(switch)
        log.warning("a daemon of the switch is gone: it is started again", program=dead)
        try:
            await switch.ensure()
        except MeshError as error:
            log.warning("the switch cannot be started", error=str(error))
            await asyncio.sleep(PAUSE)
        else:
            log.info("the switch is back", program=dead)
            await asyncio.sleep(REST)


async def _a_death(switch: Switch) -> str:
    """Return which daemon does not run, as soon as one does not."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    with ExitStack() as stack:
        for program in PROGRAMS:
            pid = running(switch.directory / f"{program}.pid", program)
            try:
                opened = os.pidfd_open(pid) if pid else -1
            except ProcessLookupError:
                opened = -1
            if opened < 0:
                return program
            stack.callback(os.close, opened)
            loop.add_reader(opened, ended.set)
            stack.callback(loop.remove_reader, opened)
        await ended.wait()
    return next((name for name in PROGRAMS if not running(switch.directory / f"{name}.pid", name)), "")
