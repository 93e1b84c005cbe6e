"""Processes that are started, watched, restarted and stopped."""

import asyncio
import contextlib
import os
import signal
import sys

import pytest

from nsmesh.core.errors import NotFound, Unavailable
from nsmesh.core.scope import Scope
from nsmesh.standalone import supervisor
from nsmesh.standalone.children import Children
from nsmesh.standalone.processes import Command
from nsmesh.standalone.supervisor import BACKOFF, Supervisor, Unit

FOREVER = "import signal; signal.pause()"


class Bench:
    """A supervisor with what it tells, and units that run a line of Python."""

    def __init__(self, scope, folder):
        self.folder = folder
        self.children = Children(folder / "children.json")
        self.deaths = asyncio.Queue()
        self.supervisor = Supervisor(
            scope, self.children, lambda unit, death: self.deaths.put_nowait((unit, death))
        )

    def start(self, program=FOREVER, restart="never", name="u"):
        command = Command([sys.executable, "-S", "-c", program], self.folder / "log")
        unit = Unit(name, "workload", command, restart=restart)
        self.supervisor.start(unit)
        return unit


def run(folder, work):
    """Run ``work(bench)``; whatever it started ends with it."""

    async def main():
        async with Scope() as scope, contextlib.AsyncExitStack() as stack:
            bench = Bench(scope, folder)
            stack.push_async_callback(lambda: bench.supervisor.stop(*bench.supervisor.units, grace=0))
            async with asyncio.timeout(30):
                await work(bench)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import sys; sys.exit(3)", "failed with exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("pass", "finished"),
    ],
)
def test_a_death_is_told_with_its_cause(tmp_path, program, why):
    """Who is not to be restarted ends for good; only an end that was no success is remembered as a death."""

    async def work(bench):
        bench.start(program)
        unit, death = await bench.deaths.get()
        assert (unit.state, death.why, death.restarted) == (why, why, False)
        assert len(bench.supervisor.deaths) == (why != "finished")
        assert bench.children.processes == {}

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("restart", "code", "again"),
    [("never", 1, False), ("on-failure", 0, False), ("on-failure", 1, True), ("always", 0, True)],
)
def test_who_is_started_again(tmp_path, restart, code, again):
    """``always`` whatever happened, ``on-failure`` after a failure; until then it is ``restarting``."""

    async def work(bench):
        unit = bench.start(f"import sys; sys.exit({code})", restart)
        _, death = await bench.deaths.get()
        assert death.restarted is again
        assert (unit.state == "restarting") is again

    run(tmp_path, work)


def test_pauses_grow_with_failures_in_a_row(tmp_path, monkeypatch):
    """Each failure in a row waits longer, up to the last pause; after a steady life it starts at once."""
    pauses = []

    async def work(bench):
        scope = bench.supervisor.scope
        monkeypatch.setattr(scope, "after", lambda delay, call: pauses.append(delay) or asyncio.Event())
        monkeypatch.setattr(asyncio.Event, "cancel", lambda _: None, raising=False)
        unit = bench.start("import sys; sys.exit(1)", "always")
        for _ in range(len(BACKOFF) + 1):
            await bench.deaths.get()
            bench.supervisor._again(unit)
        await bench.deaths.get()
        monkeypatch.setattr(supervisor, "STEADY", -1.0)
        bench.supervisor._again(unit)
        await bench.deaths.get()

    run(tmp_path, work)
    assert pauses == [*BACKOFF, BACKOFF[-1], BACKOFF[-1], 0.0]


def test_what_is_stopped_is_not_mourned(tmp_path):
    """A stop is no death: nobody is told, nothing is restarted, the unit is forgotten, also by the disk."""

    async def work(bench):
        unit = bench.start(restart="always")
        assert unit.state == "running"
        assert bench.children.processes["u"].pid == unit.process.pid
        await bench.supervisor.stop("u", "unknown", grace=5)
        assert bench.supervisor.units == {}
        assert bench.children.processes == {}
        assert bench.deaths.empty()

    run(tmp_path, work)


def test_what_a_process_started_ends_with_it(tmp_path):
    """A child that outlives its unit's process is killed: nothing of a dead unit stays."""
    program = f"""
import os, subprocess, sys
print(subprocess.Popen([sys.executable, '-S', '-c', {FOREVER!r}]).pid, flush=True)
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""

    async def work(bench):
        bench.start(program)
        await bench.deaths.get()
        child = int((tmp_path / "log").read_text())
        with contextlib.suppress(ProcessLookupError):
            watch = os.pidfd_open(child)
            gone = asyncio.Event()
            asyncio.get_running_loop().add_reader(watch, gone.set)
            await gone.wait()
            asyncio.get_running_loop().remove_reader(watch)
            os.close(watch)

    run(tmp_path, work)


def test_a_command_that_is_not_there_is_told(tmp_path):
    """The user who asked hears of it at once."""

    async def work(bench):
        unit = Unit("u", "workload", Command(["/no/such/program"], tmp_path / "log"), restart="always")
        with pytest.raises(NotFound, match="'/no/such/program' is not there"):
            bench.supervisor.start(unit)

    run(tmp_path, work)


def test_an_end_that_is_not_noticed_is_told(tmp_path, monkeypatch):
    """A process that does not end, though it was killed, is named with what to do; no second one starts."""

    async def work(bench):
        unit = bench.start()
        process = unit.process
        monkeypatch.setattr(supervisor, "NOTICED", 0.01)

        async def hangs(_process):
            return True

        with monkeypatch.context() as patch:
            patch.setattr(supervisor.processes, "succeed", hangs)
            with pytest.raises(Unavailable, match=f"process {process.pid} of workload u") as told:
                await bench.supervisor.restart("u")
        assert "nsm restart u" in told.value.remedy
        assert unit.process is process

    run(tmp_path, work)


def test_a_process_that_has_to_be_killed_for_its_successor_is_followed_by_it(tmp_path, monkeypatch):
    """Its end is noticed while the restart still waits for it: nothing of the unit may be missed then."""

    async def work(bench):
        deaf = "import signal; signal.signal(signal.SIGQUIT, signal.SIG_IGN)"
        unit = bench.start(f"{deaf}; open({str(tmp_path / 'deaf')!r}, 'w').close(); signal.pause()")
        before = unit.process.pid
        while not (tmp_path / "deaf").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
        patient = supervisor.processes.succeed
        monkeypatch.setattr(supervisor.processes, "succeed", lambda process: patient(process, 0.05))
        await bench.supervisor.restart("u")
        assert unit.state == "running"
        assert unit.process.pid != before
        assert (unit.restarts, list(bench.supervisor.deaths)) == (0, [])

    run(tmp_path, work)
