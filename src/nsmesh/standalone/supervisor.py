"""Starts, watches, restarts and stops the processes of a mesh; remembers what died and why."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.core.metrics import Counter
from nsmesh.core.process import start_ticks
from nsmesh.core.scope import Scope
from nsmesh.standalone import processes
from nsmesh.standalone.children import Children
from nsmesh.standalone.forking import ForkServer
from nsmesh.standalone.held_sockets import HeldSockets

log = structlog.get_logger()

RESTARTS = Counter("nsm_supervisor_restarts", "Processes that were started again, by unit.", ("unit",))
DEATHS = Counter("nsm_supervisor_deaths", "Processes that died by themselves, by unit.", ("unit",))

BACKOFF = (0.1, 0.5, 2.0, 5.0)
"""Seconds before the first, second, ... restart in a row; the last one repeats."""
NOTICED = 2.0
"""Seconds within which the end of a process that was stopped must be noticed."""
PATIENT = 0.5
"""Seconds: who comes again that soon is waited for, and its sockets are held."""
STEADY = 10.0
"""Seconds of life after which a process counts as healthy again."""


@dataclass(frozen=True, slots=True)
class Death:
    """One process that ended by itself; ``why`` as in ``killed by SIGKILL``, ``at`` in wall seconds."""

    name: str
    why: str
    at: float
    restarted: bool


def _nothing() -> None: ...


@dataclass(slots=True)
class Unit:
    """One supervised process. ``restart``: never, on-failure or always."""

    name: str
    kind: str
    command: processes.Command
    restart: str = "never"
    process: processes.Started | None = None
    child: subprocess.Popen[bytes] | None = None
    forks: ForkServer | None = None
    watch: processes.Watch | None = None
    started_at: float = 0.0
    failures: int = 0
    restarts: int = 0
    stopping: bool = False
    last: str = ""
    timer: Any = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    gone: Callable[[], None] = _nothing

    @property
    def listens(self) -> list[str]:
        """Where it listens, as its settings say; ports that it chooses itself left out."""
        found = self.command.environment.get("NSM_LISTEN_ON", "") if self.command.own else ""
        return [url for url in found.split(",") if ":" in url and not url.endswith(":0")]

    @property
    def state(self) -> str:
        """``running``, ``restarting``, ``stopped`` or how it ended."""
        if self.process is not None:
            return "running"
        if self.timer is not None:
            return "restarting"
        return self.last or "stopped"


class Supervisor:
    """Owns the processes. ``died`` is called for each death that nobody asked for.

    ``born`` is called for each start, before anything else runs; what it returns is called at the end.
    """

    def __init__(
        self,
        scope: Scope,
        children: Children,
        died: Callable[[Unit, Death], None] = lambda _unit, _death: None,
        born: Callable[[Unit, processes.Started], Callable[[], None]] = lambda _unit, _process: _nothing,
    ) -> None:
        self.scope = scope
        self.children = children
        self.died = died
        self.born = born
        self.units: dict[str, Unit] = {}
        self.sockets = HeldSockets()
        self.forks: ForkServer | None = None
        self.title = "nsm"
        self.deaths: deque[Death] = deque(maxlen=100)

    def start(self, unit: Unit) -> None:
        """Start a unit; raises what :func:`processes.start` raises.

        One that a killed mesh left running as it would be started is gone on with.
        """
        self.units[unit.name] = unit
        there = self.adoptable(unit)
        if there is not None:
            self.sockets.take_over(unit.name, unit.listens, there)
            self._follow(unit, there)
            return
        other = self.children.processes.get(unit.name)
        if other is not None:  # of a killed mesh, and it runs something else
            self.sockets.take_over(unit.name, unit.listens, other)
            processes.send(other, signal.SIGKILL)
        self._launch(unit)

    def adoptable(self, unit: Unit) -> processes.Started | None:
        """Return the process that a killed mesh left, which is what the unit would start; or None."""
        return self.children.same_process(unit.name, unit.command.digest)

    def _launch(self, unit: Unit) -> None:
        unit.timer = None
        unit.ended.clear()
        listen = self.sockets.open(unit.name, unit.listens, unit.command.netns)
        unit.forks = self.forks
        process = self._forked(unit, listen)
        if process is None:
            unit.forks = None
            unit.child = processes.start(unit.command, listen)
            process = processes.Started(unit.child.pid, start_ticks(unit.child.pid) or 0)
        self._follow(unit, process)

    def _forked(self, unit: Unit, listen: list[int]) -> processes.Started | None:
        """Have one of our own commands started by the fork server, where there is one; else return None."""
        if unit.forks is None or unit.forks.gone or not unit.command.own:
            return None
        title = f"{self.title} {' '.join(unit.command.own)}"
        try:
            return unit.forks.start(unit.command, unit.name, title, listen)
        except (MeshError, OSError) as error:
            log.warning("not forked, but started", unit=unit.name, error=str(error))
            return None

    def _follow(self, unit: Unit, process: processes.Started) -> None:
        unit.process = process
        unit.gone = self.born(unit, process)
        unit.started_at = self.scope.clock.monotonic()
        self.children.add_process(unit.name, process, unit.command.digest)
        ours = unit.child is not None or unit.forks is not None
        what = "process started" if ours else "process gone on with"
        log.info(what, unit=unit.name, kind=unit.kind, pid=process.pid)
        try:
            unit.watch = processes.Watch(process, lambda: self._ended_now(unit))
        except ProcessLookupError:
            asyncio.get_running_loop().call_soon(self._ended_now, unit)

    def _ended_now(self, unit: Unit) -> None:
        """Find out how it ended: its parent knows."""
        if unit.forks is not None and unit.process is not None:
            unit.forks.end_of(unit.process, lambda code: self._over(unit, code))
        else:
            self._over(unit, unit.child.wait() if unit.child is not None else None)

    def _over(self, unit: Unit, code: int | None) -> None:
        unit.last = _why(code)
        lived = self.scope.clock.monotonic() - unit.started_at
        leftovers, unit.process, unit.child, unit.watch = unit.process, None, None, None
        if leftovers is not None:
            processes.send(leftovers, signal.SIGKILL)  # what it started ends with it
        self.children.drop_process(unit.name)
        unit.gone()
        unit.ended.set()
        if unit.stopping:
            return
        delay = PATIENT
        again = unit.restart == "always" or (unit.restart == "on-failure" and code != 0)
        death = Death(unit.name, unit.last, self.scope.clock.now(), again)
        if code != 0 or again:
            self.deaths.append(death)
            DEATHS.add(unit.name)
            log.warning("process died", unit=unit.name, kind=unit.kind, why=unit.last, restarts=again)
        if again:
            unit.failures = 0 if lived > STEADY else unit.failures + 1
            delay = BACKOFF[min(unit.failures, len(BACKOFF)) - 1] if unit.failures else 0.0
            unit.timer = self.scope.after(delay, lambda: self._again(unit))
        if not again or delay > PATIENT:
            self.sockets.release(unit.name)
        self.died(unit, death)

    def _again(self, unit: Unit) -> None:
        unit.restarts += 1
        RESTARTS.add(unit.name)
        try:
            self._launch(unit)
        except MeshError as error:
            unit.last = str(error)
            unit.failures += 1
            unit.timer = self.scope.after(BACKOFF[-1], lambda: self._again(unit))
            log.warning("restart failed", unit=unit.name, error=str(error))

    async def restart(self, name: str, between: Callable[[], None] = _nothing) -> None:
        """End a unit by the book and start it again at once; its deaths and restarts are not counted.

        ``between`` is called when it has ended. It finishes what it was asked, and who asks meanwhile waits
        for the next one at the socket.

        Raises Unavailable where its process does not end, and what :func:`processes.start` raises.
        """
        unit = self.units[name]
        unit.stopping = True
        try:
            if unit.timer is not None:
                unit.timer.cancel()
                unit.timer = None
            process = unit.process  # the unit has none any more as soon as its end is noticed
            if process is not None:
                if not await processes.succeed(process):
                    log.warning("process had to be killed", pid=process.pid)
                await self._ended(unit)
            between()
        finally:
            unit.stopping = False
        unit.failures = 0
        self._launch(unit)

    async def _ended(self, unit: Unit) -> None:
        """Wait until the end of a process that was stopped is noticed; raises Unavailable."""
        pid = unit.process.pid if unit.process is not None else 0
        try:
            async with asyncio.timeout(NOTICED):
                await unit.ended.wait()
        except TimeoutError as error:
            raise Unavailable(
                f"process {pid} of {unit.kind} {unit.name} was killed and has not ended within {NOTICED:g} s",
                remedy=f"see what it hangs in with: cat /proc/{pid}/stack; then: nsm restart {unit.name}",
            ) from error

    async def stop(self, *names: str, grace: float = 3.0) -> None:
        """Stop units and forget them; names that are not known are ignored."""
        units = [self.units[name] for name in names if name in self.units]
        for unit in units:
            unit.stopping = True
            if unit.timer is not None:
                unit.timer.cancel()
                unit.timer = None
        living = [unit for unit in units if unit.process is not None]
        killed = await processes.stop([unit.process for unit in living if unit.process], grace)
        for process in killed:
            log.warning("process had to be killed", pid=process.pid)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                for unit in living:
                    await unit.ended.wait()
        for unit in units:
            self.units.pop(unit.name, None)
            self.sockets.release(unit.name)
            self.children.drop_process(unit.name)


def _why(code: int | None) -> str:
    if code is None:
        return "ended"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return "finished" if code == 0 else f"failed with exit code {code}"
