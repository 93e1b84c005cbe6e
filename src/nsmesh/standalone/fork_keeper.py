"""Sees to it that the supervisor of a mesh has a fork server: one that dies is replaced, one outlives us."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.core.process import start_ticks
from nsmesh.core.scope import Scope
from nsmesh.standalone import processes
from nsmesh.standalone.forking import ForkServer, spawned
from nsmesh.standalone.processes import Started
from nsmesh.standalone.supervisor import Supervisor

log = structlog.get_logger()

NAME = "fork-server"
"""What it is called among the processes of a mesh."""
OUTPUT = f"{NAME}.log"
"""Name of the log of fork servers that are not forked off the daemon."""
READY = 20.0
"""Seconds within which a fork server has imported everything."""
PAUSE = 1.0
"""Seconds between the end of a fork server and the start of the next one."""


class ForkKeeper:
    """Gives ``supervisor`` its fork server. While there is none, processes start more slowly.

    ``door``: where it is asked for the next daemon, when this one is killed.
    """

    def __init__(self, supervisor: Supervisor, scope: Scope, output: Path, door: Path) -> None:
        self._supervisor = supervisor
        self._scope = scope
        self._output = output
        self._door = door
        self._closed = False

    async def use(self, forks: ForkServer) -> None:
        """Have processes forked from now on by this one, once it is ready."""
        forks.follow()
        await ready(forks)
        if self._closed:
            forks.close()
            return
        before = self.swap(forks)
        if before is not None:
            before.close()
        self._remember(forks)

    def _remember(self, forks: ForkServer) -> None:
        """Let it stay after us, where those who come will find it; one of an earlier daemon ends."""
        children, found = self._supervisor.children, Started(forks.pid, start_ticks(forks.pid) or 0)
        other = children.processes.get(NAME)
        if other not in {None, found}:
            processes.send(other, signal.SIGKILL)
        children.add_process(NAME, found)
        forks.stay(self._door)

    def swap(self, forks: ForkServer | None) -> ForkServer | None:
        """Have processes forked from now on by another one; return the one that was in its place."""
        before, self._supervisor.forks = self._supervisor.forks, forks
        if before is not None:
            before.on_gone = lambda: None
        if forks is None or forks.gone:
            self._replace()
        else:
            forks.on_gone = self._replace
        return before

    def _replace(self) -> None:
        if not self._closed and self._scope.running:
            self._supervisor.forks = None
            self._supervisor.children.drop_process(NAME)
            self._scope.spawn(self._again(), name="fork server")

    async def _again(self) -> None:
        await asyncio.sleep(PAUSE)
        try:
            await self.use(spawned(self._output, self._supervisor.title))
        except MeshError as error:
            log.warning("there is no fork server: processes start more slowly", error=str(error))

    def close(self) -> None:
        """Let it go."""
        self._closed = True
        forks, self._supervisor.forks = self._supervisor.forks, None
        if forks is not None:
            forks.close()
        self._supervisor.children.drop_process(NAME)


async def ready(forks: ForkServer) -> None:
    """Wait until it can fork, or is gone, but not for ever."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY):
            await forks.ready.wait()
