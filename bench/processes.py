"""Processes that a benchmark starts: they end with it, whatever happens, and are looked at from outside."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
GRACE = 20.0
"""Seconds that a process has to end before it is killed."""

_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: ``pss`` shares what several processes have mapped among them, ``rss`` counts it in full."""

    pss: int
    rss: int


class Process:
    """One process. Its output goes to ``log``, unless ``talk``: then stdin and stdout are ours."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        talk: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if talk else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talk else out,
                stderr=out,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C is for the benchmark, which ends its processes in order
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one thread, and only a system call
                cwd="/",
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self.popen.pid

    def cpu(self) -> float:
        """Return the processor time of all its threads so far, seconds."""
        return cpu_of(self.pid)

    def memory(self) -> Memory:
        """Return what it holds."""
        return memory_of(self.pid)

    def descriptors(self) -> int:
        """Return how many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def check(self) -> None:
        """Raise SystemExit with the end of its log when it is gone."""
        if self.popen.poll() is not None:
            raise SystemExit(f"{self.name} ended: {self.tail()}")

    def tail(self) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def stop(self) -> None:
        """End it: one that we talk to by saying no more, others by SIGTERM; after :data:`GRACE` by force."""
        if self.popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.popen.stdin.close()
        else:
            self.popen.terminate()
        try:
            self.popen.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        if self.popen.stdout is not None:
            self.popen.stdout.close()


def cpu_of(pid: int) -> float:
    """Return the processor time of a process so far, in seconds; /proc only knows ticks of 10 ms."""
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)


def kernel_of(pid: int) -> float:
    """Return the part of :func:`cpu_of` that was spent in the kernel, to ticks of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[12]) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int) -> Memory:
    """Return what a process holds."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, _, value = line.partition(":")
        found[key] = int(value.split()[0]) * 1024
    return Memory(found["Pss"], found["Rss"])


def command(*arguments: str, profile: Path | None = None) -> list[str]:
    """Return the command line of ``nsm``; ``profile``: where cProfile writes what it saw."""
    watched = ["-m", "cProfile", "-o", str(profile)] if profile else []
    return [sys.executable, *watched, "-m", "nsmesh.cli.main", *arguments]
