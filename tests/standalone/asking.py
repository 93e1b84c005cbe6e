"""A client of its own that asks for one new wire after another, and counts who is refused and who waits.

As a program: ``python asking.py RUN-DIRECTORY SERVICE NAMESPACE SECONDS``, until its standard input ends.
Each Request has one try: what fails is told, and not tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Self

from nsmesh.chains.client import client
from nsmesh.chains.runtime import runtime
from nsmesh.core import logging
from nsmesh.core.call import Call, Peer
from nsmesh.core.errors import MeshError
from nsmesh.model.messages import KERNEL, LOCAL, Connection, Mechanism, NetworkServiceRequest

PATIENCE = 15.0
"""Seconds that a Request may take."""
LATE = re.compile(r"(in|within) [0-9.]+ s\b|in time\b")
"""What an answer says that came too late for somebody on the way."""
OURS = Peer(in_process=True)


def is_refusal(why: str) -> bool:
    """Say whether somebody, or nobody there, said no. That a busy machine took too long is another matter."""
    return bool(why) and not LATE.search(why)


def request_of(number: int, service: str, space: str) -> NetworkServiceRequest:
    parameters = {"inodeURL": f"file://{space}", "name": f"ask{number}"}
    return NetworkServiceRequest(
        connection=Connection(id=f"ask-{number}", network_service=service),
        mechanism_preferences=[Mechanism(cls=LOCAL, type=KERNEL, parameters=parameters)],
    )


async def ask(chain: Any, number: int, service: str, space: str, found: list[Any]) -> None:
    begun = time.monotonic()
    why = ""
    try:
        call = Call(peer=OURS).within(PATIENCE)
        connection = await chain.request(call, request_of(number, service, space))
    except MeshError as error:
        why = f"request {number}: {error}"
    found.append((begun, time.monotonic() - begun, why))
    if not why:
        try:
            await chain.close(Call(peer=OURS).within(PATIENCE), connection)
        except MeshError as error:
            found.append((begun, time.monotonic() - begun, f"close {number}: {error}"))


async def main(run: str, service: str, space: str, every: float) -> None:
    held = runtime(lifetime=60, dial_timeout=5.0, workload_api=f"unix://{run}/workload.sock")
    async with held as mine:
        chain = client(
            "asking",
            manager=f"unix://{run}/nsm.io.sock",
            peers=mine.peers,
            tokens=mine.tokens,
            checks=mine.checks(),
            clock=mine.clock,
        )
        async with chain.running():
            ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            found: list[Any] = []
            tasks = [asyncio.ensure_future(ask(chain, 0, service, space, found))]
            await tasks[0]
            print("ready", flush=True)  # noqa: T201 - whoever started us waits for it
            while not ended.done():
                await asyncio.sleep(every)
                tasks.append(asyncio.ensure_future(ask(chain, len(tasks), service, space, found)))
            await asyncio.gather(*tasks)
    print(json.dumps(found), flush=True)  # noqa: T201 - likewise


@dataclass
class Asking:
    """Requests every ``every`` seconds while it is entered, until ``end``; then what became of them."""

    run: str
    service: str
    space: str
    every: float = 0.25
    longest: float = 0.0
    refused: list[str] = field(default_factory=list)
    count: int = 0
    begun: list[tuple[float, str]] = field(default_factory=list)

    def __enter__(self) -> Self:
        words = [sys.executable, __file__, self.run, self.service, self.space, str(self.every)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout.readline() == "ready\n"
        return self

    def end(self) -> Self:
        out, _ = self.process.communicate(timeout=40)
        found = json.loads(out)
        self.count = len(found)
        self.longest = max(took for _, took, _ in found)
        self.refused = [why for *_, why in found if is_refusal(why)]
        self.begun = [(begun, why) for begun, _, why in found]
        return self

    def refused_since(self, moment: float) -> list[str]:
        """Return what became of those that began after ``moment`` (monotonic) and were refused."""
        return [why for begun, why in self.begun if begun >= moment and is_refusal(why)]

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            stream.close()


if __name__ == "__main__":
    logging.configure(role="asking", level="ERROR")
    asyncio.run(main(*sys.argv[1:4], float(sys.argv[4])))
