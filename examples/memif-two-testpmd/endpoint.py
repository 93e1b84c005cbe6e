"""An endpoint whose wires end in a packet processor: a ``dpdk-testpmd`` for each, which sends frames back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from nsmesh.core.call import Call, State
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Unavailable
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.endpoints.base import Endpoint
from nsmesh.endpoints.memif_answers import folder_of
from nsmesh.mechanisms.memif import Memif
from nsmesh.model.messages import Connection, NetworkServiceRequest

OPTIONS = "--no-pci --no-huge --legacy-mem -m 96 --lcores 0@0,1@0"
WORK = "-i --total-num-mbufs=4096 --nb-cores=1 --port-topology=loop --forward-mode=macswap --auto-start"
PATIENCE = 20.0
"""Seconds within which a processor must listen."""


class Processors(Element):
    """Has a processor listen at the socket of each connection; it ends with the connection.

    After:  Begin, Ipam
    Close:  ends the processor, then passes on
    """

    after = ("Begin", "Ipam")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, tuple[asyncio.subprocess.Process, Path]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Have the folder of the sockets while the chain runs."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        try:
            yield self
        finally:
            for name in list(self._running):
                await self._end(name)
            with suppress(OSError):
                self._folder.rmdir()

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """End the processor."""
        await self._end(connection_id)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then have a processor listen at the socket that was agreed on."""
        answer = await next.request(call, request)
        if answer.id not in self._running:
            await self._start(answer.id, Path(answer.mechanism.parameters["socketfile"]))
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """End the processor, pass on."""
        await self._end(connection.id)
        await next.close(call, connection)

    async def _start(self, name: str, path: Path) -> None:
        path.unlink(missing_ok=True)
        device = f"net_memif0,role=server,id=0,socket={path},socket-abstract=no"
        command = [*OPTIONS.split(), f"--file-prefix={path.stem}", "--vdev", device, "--", *WORK.split()]
        process = await asyncio.create_subprocess_exec(
            "dpdk-testpmd", *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        self._running[name] = process, path
        try:
            await _listening(process, path)
        except BaseException:
            await self._end(name)
            raise

    async def _end(self, name: str) -> None:
        if name in self._running:
            process, path = self._running.pop(name)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            path.unlink(missing_ok=True)


async def _listening(process: asyncio.subprocess.Process, path: Path) -> None:
    """Wait for its socket. Raises Unavailable where it does not come."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while process.returncode is None:
                if path.exists():
                    return
                await asyncio.sleep(0.02)
    raise Unavailable(
        f"dpdk-testpmd does not listen at {path}: it has ended with {process.returncode}",
        remedy="start it by hand to see what it says",
    )


class Processor(Endpoint):
    """Gives addresses out, as they all do, and has a packet processor where its wires end."""

    def elements(self) -> Sequence[Element]:
        """Return address management, and what starts processors."""
        return (*super().elements(), Processors(folder_of(self.name)))

    def mechanisms(self, place: str) -> Sequence[MechanismPlugin]:  # noqa: ARG002 - a socket is in none
        """Return memif, with a socket for each connection in a folder of this endpoint."""
        return [Memif(folder=str(folder_of(self.name)))]
