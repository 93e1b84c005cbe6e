"""One child process that has to run as long as we do: watched, started again, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

import structlog

from nsmesh.core.errors import MeshError, NotFound
from nsmesh.core.scope import Scope

log = structlog.get_logger()

BACKOFF = (0.1, 0.5, 2.0, 5.0)
"""Seconds before the first, second, ... restart in a row; the last one repeats."""
STEADY = 10.0
"""Seconds of life after which failures count from the beginning."""
GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""


class Child:
    """Runs a program while entered. It dies with the thread that runs our loop, however that ends.

    ``prepare`` is called with its pid after each start; the child counts as started when that returns. Where
    it waits for something, it should look at :attr:`pid`, which is None once the child has died. Lines of the
    child's standard error that contain ``ERROR`` are logged.
    """

    def __init__(
        self,
        scope: Scope,
        name: str,
        argv: Sequence[str],
        prepare: Callable[[int], Awaitable[None]],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.scope = scope
        self.name = name
        self.argv = tuple(argv)
        self.prepare = prepare
        self.environment = dict(environment or {})
        self.restarts = 0
        self._process: Process | None = None
        self._failures = 0

    @property
    def pid(self) -> int | None:
        """Its pid, or None while it is not running."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Start it, and keep it running while the block runs. Raises what the first start raises."""
        try:
            await self._start()
            watch = self.scope.spawn(self._watch(), name=f"child {self.name}")
            try:
                yield self
            finally:
                watch.cancel()
                await asyncio.wait((watch,))
        finally:
            await self._stop()

    async def _start(self) -> None:
        # the kernel sends the signal when the thread that starts the child ends, by whatever death
        command = ("setpriv", "--pdeathsig", "KILL", *self.argv)
        environment = {**os.environ, **self.environment}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, env=environment
            )
        except FileNotFoundError:
            raise NotFound("the program setpriv is not here", remedy="install util-linux") from None
        self.scope.spawn(self._listen(self._process), name=f"child {self.name}: errors")
        try:
            await self.prepare(self._process.pid)
        except BaseException:
            await self._stop()
            raise
        log.info("child started", child=self.name, pid=self._process.pid)

    async def _listen(self, process: Process) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            if b"ERROR" in line:
                log.warning("child says", child=self.name, line=line.decode(errors="replace").strip())

    async def _watch(self) -> None:
        while True:
            started = self.scope.clock.monotonic()
            if self._process is not None:
                code = await self._process.wait()
                log.warning("child died", child=self.name, code=code)
                if self.scope.clock.monotonic() - started > STEADY:
                    self._failures = 0
            await asyncio.sleep(BACKOFF[min(self._failures, len(BACKOFF) - 1)])
            self._failures += 1
            try:
                await self._start()
            except MeshError as error:
                log.warning("child cannot be started again", child=self.name, error=str(error))
            else:
                self.restarts += 1

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(GRACE):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
