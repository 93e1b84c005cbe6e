"""Streams of numbered packets through a wire: started in its namespaces, counted at their end."""

from __future__ import annotations

import asyncio
import contextlib
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


class Stream:
    """A stream from one namespace to the first of several that an address leads to.

    ``arrivals`` has, after :meth:`end`, numbers and times by receiver.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sender: subprocess.Popen[bytes] | None = None
        self._receivers: list[subprocess.Popen[bytes]] = []
        self.arrivals: list[list[tuple[int, int]]] = []

    async def begin(self, source: str, address: str, targets: Sequence[str], rate: int) -> None:
        """Send ``rate`` packets a second; all ``targets`` listen before the first one goes."""
        for number, target in enumerate(targets):
            self._receivers.append(_start(target, "receive", str(PORT), str(self._file(number))))
        for receiver in self._receivers:
            assert receiver.stdout is not None
            if await asyncio.to_thread(receiver.stdout.readline) != b"ready\n":
                raise Internal("the receiver of a stream did not start")
        self._sender = _start(source, "send", address, str(PORT), str(rate))

    def _file(self, number: int) -> Path:
        return self._folder / f"arrivals-{id(self)}-{number}"

    async def end(self) -> Tally:
        """Stop sending, let packets arrive, and return what became of them. Raises Internal."""
        if self._sender is None:
            raise Internal("the stream was not begun")
        self._sender.terminate()
        out, _ = await asyncio.to_thread(self._sender.communicate, timeout=PATIENCE)
        await asyncio.sleep(DRAIN)
        for receiver in self._receivers:
            receiver.terminate()
        for number, receiver in enumerate(self._receivers):
            await asyncio.to_thread(receiver.wait, PATIENCE)
            file = self._file(number)
            self.arrivals.append(records(file.read_bytes()) if file.exists() else [])
            file.unlink(missing_ok=True)
        told = json.loads(out)
        every = [one for part in self.arrivals for one in part]
        return tally(told["sent"], every, dict(told["pauses"]))

    def close(self) -> None:
        """End what still runs."""
        for process in filter(None, (self._sender, *self._receivers)):
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
