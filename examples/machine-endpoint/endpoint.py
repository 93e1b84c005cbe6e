"""An endpoint whose wires end in virtual machines: one boots for each connection, and its monitor listens."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import structlog

from nsmesh.core.call import Call, State
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Unavailable
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.endpoints.base import Endpoint
from nsmesh.mechanisms.vhost_user import VhostUser
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.sockets import short_name

sys.path.append(str(Path(__file__).resolve().parents[1] / "virtual-machine"))
from tiny_image import MissingError, image
from tiny_machine import Card, Machine, MachineError

log = structlog.get_logger()
FOLDER = Path("/run")
PATIENCE = 20.0
"""Seconds within which a machine's monitor must listen; the boot itself comes after the Request."""


class Machines(Element):
    """Has a machine boot at the socket of each connection; it ends with the connection.

    The monitor waits at its socket until the switch has come, which is after the Request: so the machine
    boots while the client has its wire already.

    After:  Begin, Ipam
    Close:  ends the machine, then passes on
    """

    after = ("Begin", "Ipam")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._booting: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Have the folder of sockets and machines while the chain runs."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        try:
            yield self
        finally:
            for name in list(self._booting):
                await self._end(name)
            with suppress(OSError):
                self._folder.rmdir()

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """End the machine."""
        await self._end(connection_id)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then have a machine's monitor listen at the socket that was agreed on."""
        answer = await next.request(call, request)
        if not self._machine(answer.id).pid:
            await self._start(answer)
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """End the machine, pass on."""
        await self._end(connection.id)
        await next.close(call, connection)

    def _machine(self, name: str) -> Machine:
        return Machine(self._folder / short_name(name))

    async def _start(self, connection: Connection) -> None:
        path = Path(connection.mechanism.parameters["socketfile"])
        await self._end(connection.id)
        booting = asyncio.create_task(asyncio.to_thread(self._boot, connection, path))
        self._booting[connection.id] = booting
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not path.exists() and not booting.done():  # noqa: ASYNC110 - a file of another program
                    await asyncio.sleep(0.02)
        if not path.exists():
            await self._end(connection.id)
            raise Unavailable(f"no machine listens at {path}", remedy="see the log of this endpoint")

    def _boot(self, connection: Connection, path: Path) -> None:
        """Boot, and give the machine the addresses of the endpoint's end."""
        context = connection.context.ip_context
        machine = self._machine(connection.id)
        lines = ["ip link set eth0 up"]
        lines += [f"ip address add {address} dev eth0" for address in context.dst_ip_addrs]
        lines += [f"ip route add {address} dev eth0" for address in context.src_ip_addrs]
        try:
            machine.start(Card(str(path), listens=True), image())
            machine.run(" && ".join(lines))
        except (MachineError, MissingError, OSError) as error:
            log.warning("the machine does not boot", connection=connection.id, error=str(error))
            machine.kill()

    async def _end(self, name: str) -> None:
        machine = self._machine(name)
        await asyncio.to_thread(machine.kill)
        if booting := self._booting.pop(name, None):
            await booting  # its monitor is gone, so it comes to its end
        for path in (*machine.folder.glob("*"), self._folder / f"{short_name(name)}.vhost"):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            machine.folder.rmdir()


def folder_of(name: str, directory: Path) -> Path:
    """Return the folder of an endpoint, by its name and the directory that it works in."""
    digest = hashlib.sha256(f"{directory} {name}".encode()).hexdigest()[:10]
    return FOLDER / f"nsm-machines-{digest}"


class MachineEndpoint(Endpoint):
    """Gives addresses out, as they all do, and has a virtual machine where its wires end."""

    @property
    def folder(self) -> Path:
        """Return where its machines and sockets are: the same after a restart, another for each mesh."""
        return folder_of(self.name, Path.cwd())

    def elements(self) -> Sequence[Element]:
        """Return address management, and what boots machines."""
        return (*super().elements(), Machines(self.folder))

    def mechanisms(self, place: str) -> Sequence[MechanismPlugin]:  # noqa: ARG002 - a socket is in none
        """Return vhost-user: a monitor listens at a socket for each connection, and the switch connects."""
        return [VhostUser(folder=str(self.folder))]
