"""An endpoint's wires in memory that it shares: a memif socket for each connection, and answers to pings."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nsmesh.core.call import Call, State
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Refused
from nsmesh.datapath.memif.answers import Answers
from nsmesh.datapath.memif.peer import Listener, abandoned, listen
from nsmesh.model.fileurl import INODE_URL, file_path
from nsmesh.model.messages import MEMIF, Connection, NetworkServiceRequest
from nsmesh.model.wiring import Side, derived_mac


def folder_of(name: str, directory: Path | None = None) -> Path:
    """Return where an endpoint has its memif sockets: the same after a restart, another for each mesh.

    What tells endpoints of one name apart is the directory that they work in; None: that of this process.
    """
    place = Path("/run") if os.access("/run", os.W_OK) else Path(tempfile.gettempdir())
    digest = hashlib.sha256(f"{directory or Path.cwd()} {name}".encode()).hexdigest()[:16]
    return place / f"nsm-memif-{digest}"


@dataclass(slots=True)
class _Wire:
    """What answers at a connection's socket, and what listens there."""

    answers: Answers
    listener: Listener | None = None

    def answer(self, frame: bytes) -> bytes | None:
        """Answer a frame as the connection is now."""
        return self.answers(frame)


class AnswerMemif(Element):
    """Listens at the memif socket of each connection, and answers ARP, neighbour discovery and pings there.

    After:  Begin, Ipam
    Reads:  the answer's mechanism and addresses
    Leaves: a socket per connection
    Close:  ends the wire, then passes on
    """

    after = ("Begin", "Ipam")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._wires: dict[str, _Wire] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Have the folder while the chain runs. Raises Refused where it cannot be ours alone."""
        if platform.machine() != "x86_64":
            raise Refused(
                f"memif in Python is for x86-64 processors, and this one is {platform.machine()}",
                remedy="use kernel interfaces here",
            )
        self._folder.mkdir(mode=0o700, exist_ok=True)
        found = self._folder.lstat()
        if self._folder.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise Refused(f"{self._folder} is no private folder of this endpoint's user", remedy="remove it")
        try:
            yield self
        finally:
            for name in list(self._wires):
                self._end(name)
            with suppress(OSError):
                self._clear()
                self._folder.rmdir()

    def _clear(self) -> None:
        """Take away sockets of an earlier process that was killed, whose wires have moved; raises OSError."""
        for path in self._folder.iterdir():
            if abandoned(str(path)):
                path.unlink()

    def keeps(self) -> Collection[str]:
        """Return who has a socket."""
        return self._wires

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """End its wire."""
        self._end(connection_id)

    async def resume(self, call: Call, connection: Connection) -> None:  # noqa: ARG002 - the face of an element
        """Listen again where an earlier process did."""
        self._serve(connection)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, listen."""
        answer = await next.request(call, request)
        self._serve(answer)
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """End the wire, pass on."""
        self._end(connection.id)
        await next.close(call, connection)

    def _serve(self, connection: Connection) -> None:
        path = file_path(connection.mechanism.parameters.get(INODE_URL, ""))
        if connection.mechanism.type != MEMIF or path is None or Path(path).parent != self._folder:
            self._end(connection.id)
            return
        mac = derived_mac(connection.id, Side.ENDPOINT)
        answers = Answers(mac, connection.context.ip_context.dst_ip_addrs)
        wire = self._wires.get(connection.id)
        if wire is not None:
            wire.answers = answers
            return
        Path(path).unlink(missing_ok=True)  # of an earlier process: the folder is this endpoint's alone
        wire = _Wire(answers)
        wire.listener = listen(path, wire.answer)
        self._wires[connection.id] = wire

    def _end(self, connection_id: str) -> None:
        wire = self._wires.pop(connection_id, None)
        if wire is not None and wire.listener is not None:
            wire.listener.close()
