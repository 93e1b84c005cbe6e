"""Streams of numbered packets through a wire: started in its namespaces, counted at their end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from nsmesh.chaos.packets import Tally, records, tally
from nsmesh.core.errors import Internal
from nsmesh.datapath import netns

PORT = 9999
DRAIN = 0.3
"""Seconds that packets have to arrive after the last one was sent."""
PATIENCE = 10.0
"""Seconds within which an end of a stream starts, or tells what it saw."""


def _start(space: str, *words: str) -> subprocess.Popen[bytes]:
    """Start an end of a stream in the namespace at a path; raises MeshError."""
    namespace = netns.open_netns(space)
    try:
        with netns.inside(namespace):
            return subprocess.Popen(
                [sys.executable, "-m", "nsmesh.chaos.traffic", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
    finally:
        os.close(namespace)


async def _ready(process: subprocess.Popen[bytes], what: str) -> None:
    assert process.stdout is not None
    if await asyncio.to_thread(process.stdout.readline) != b"ready\n":
        raise Internal(f"the {what} of a stream did not start")


class Stream:
    """A stream from one namespace to the first of several that an address leads to.

    ``arrivals`` has, after :meth:`end`, numbers and times by receiver, in the order in which they ended.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sender: subprocess.Popen[bytes] | None = None
        self._receivers: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        self._count = itertools.count()
        self.arrivals: list[list[tuple[int, int]]] = []

    async def begin(self, source: str, address: str, targets: Sequence[str], rate: int) -> None:
        """Send ``rate`` packets a second; all ``targets`` listen before the first one goes."""
        await self.join(*targets)
        self._sender = _start(source, "send", address, str(PORT), str(rate))
        await _ready(self._sender, "sender")

    async def join(self, *targets: str) -> None:
        """Listen in more namespaces; raises Internal."""
        for target in targets:
            file = self._folder / f"arrivals-{id(self)}-{next(self._count)}"
            self._receivers[target] = _start(target, "receive", str(PORT), str(file)), file
        for target in targets:
            await _ready(self._receivers[target][0], "receiver")

    def hush(self, *targets: str) -> None:
        """Have those who listen in some namespaces end, without waiting for it."""
        for target in targets:
            self._receivers[target][0].terminate()

    async def leave(self, *targets: str) -> None:
        """Listen no more in some namespaces, which die with whoever else lives there; keep what came."""
        ended = [self._receivers.pop(target) for target in targets]
        for receiver, _ in ended:
            receiver.terminate()
        for receiver, file in ended:
            await asyncio.to_thread(receiver.wait, PATIENCE)
            if receiver.stdout is not None:
                receiver.stdout.close()
            self.arrivals.append(records(file.read_bytes()) if file.exists() else [])
            file.unlink(missing_ok=True)

    async def end(self) -> Tally:
        """Stop sending, let packets arrive, and return what became of them. Raises Internal."""
        if self._sender is None:
            raise Internal("the stream was not begun")
        self._sender.terminate()
        out, _ = await asyncio.to_thread(self._sender.communicate, timeout=PATIENCE)
        await asyncio.sleep(DRAIN)
        await self.leave(*self._receivers)
        told = json.loads(out)
        every = [one for part in self.arrivals for one in part]
        return tally(told["sent"], every, dict(told["pauses"]))

    def close(self) -> None:
        """End what still runs."""
        for process in filter(None, (self._sender, *(one for one, _ in self._receivers.values()))):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@asynccontextmanager
async def stream(
    folder: Path, source: str, address: str, targets: Sequence[str], rate: int
) -> AsyncIterator[Stream]:
    """Have a stream while the block runs; raises MeshError where it cannot start."""
    one = Stream(folder)
    try:
        await one.begin(source, address, targets, rate)
        yield one
    finally:
        one.close()
