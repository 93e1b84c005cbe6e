"""A child process that is kept alive. Real processes: what is tested is the kernel's part too."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.core.scope import Scope
from nsmesh.datapath.child import Child

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


async def nothing(_pid: int) -> None:
    pass


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text()


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the kernel sends no event
            await asyncio.sleep(0.01)


def test_a_killed_child_is_started_and_prepared_again():
    """Under another pid; leaving ends it for good."""

    async def main() -> None:
        pids: list[int] = []

        async def prepare(pid: int) -> None:
            pids.append(pid)

        async with Scope() as scope:
            child = Child(scope, "sleeper", SLEEP, prepare)
            async with child.running():
                os.kill(pids[0], signal.SIGKILL)
                await until(lambda: child.restarts == 1)
                assert child.pid == pids[1] != pids[0]
            assert child.pid is None
            assert not alive(pids[1])

    asyncio.run(main())


def test_a_child_that_cannot_be_prepared_is_an_error_and_gone():
    """The first start raises what prepare raises."""

    async def main() -> None:
        pids: list[int] = []

        async def prepare(pid: int) -> None:
            pids.append(pid)
            raise Unavailable("not like this")

        async with Scope() as scope:
            with pytest.raises(Unavailable, match="not like this"):
                async with Child(scope, "sleeper", SLEEP, prepare).running():
                    pass
        assert not alive(pids[0])

    asyncio.run(main())


def test_a_child_that_does_not_hear_is_killed(monkeypatch: pytest.MonkeyPatch):
    """SIGTERM first, SIGKILL after the grace."""
    monkeypatch.setattr("nsmesh.datapath.child.GRACE", 0.1)

    async def main() -> None:
        source = (
            "import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "print('ERROR deaf', file=sys.stderr, flush=True)\n"
            "time.sleep(60)\n"
        )
        async with Scope() as scope:
            child = Child(scope, "deaf", (sys.executable, "-c", source), nothing)
            async with child.running():
                pid = child.pid
                assert pid is not None
                await asyncio.sleep(0.3)
            assert not alive(pid)

    asyncio.run(main())


def test_a_child_dies_with_its_parent(tmp_path: Path):
    """Even when the parent is killed with SIGKILL and can clean up nothing."""
    source = f"""
import asyncio
from nsmesh.core.scope import Scope
from nsmesh.datapath.child import Child
async def prepare(pid):
    print(pid, flush=True)
async def main():
    async with Scope() as scope, Child(scope, "sleeper", {SLEEP!r}, prepare).running():
        await asyncio.sleep(60)
asyncio.run(main())
"""

    async def main() -> None:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", source, stdout=asyncio.subprocess.PIPE
        )
        assert parent.stdout is not None
        pid = int(await parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        await parent.wait()
        await until(lambda: not alive(pid))

    asyncio.run(main())


def test_a_program_that_is_not_there_ends_at_once():
    """What prepare waits for can see it: the pid is None then."""

    async def main() -> None:
        async with Scope() as scope:
            child: Child

            async def prepare(_pid: int) -> None:
                await until(lambda: child.pid is None)
                raise Unavailable("it ended")

            child = Child(scope, "none", ("/no/such/program",), prepare)
            with pytest.raises(MeshError, match="it ended"):
                async with child.running():
                    pass

    asyncio.run(main())
