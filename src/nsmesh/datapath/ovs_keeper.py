"""Keeping a switch alive: a daemon of it that dies is started again at once, without a request."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.core.scope import Scope
from nsmesh.datapath.ovs_callers import Callers
from nsmesh.datapath.ovs_programs import running
from nsmesh.datapath.ovs_switch import PROGRAMS, Switch

log = structlog.get_logger()

PAUSE = 0.2
"""Seconds between two attempts to start what does not start."""
REST = 0.02
"""Seconds between two starts: a daemon that dies as soon as it runs shall not take the processor."""


@asynccontextmanager
async def keeping(switch: Switch) -> AsyncIterator[None]:
    """Keep the daemons of a switch running while the block runs; they stay when it ends.

    Raises what :meth:`Switch.ensure` raises where they cannot be started at first.
    """
    await switch.ensure()
    async with Scope("ovs") as scope:
        scope.spawn(_keep(switch), name="switch")
        scope.spawn(Callers(switch.ports, scope.clock.monotonic).keep(), name="memif endpoints")
        scope.spawn(switch.spares.keep(), name="ports in advance")
        yield


async def _keep(switch: Switch) -> None:
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
