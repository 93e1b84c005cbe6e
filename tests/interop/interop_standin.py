"""A played role on the wire: its identity, its socket, its connections to ours."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nsmesh import rpc
from nsmesh.core.errors import Unavailable
from nsmesh.rpc.descriptors import Descriptors
from nsmesh.security.svid import SvidSource


@dataclass
class StandIn:
    """One role that the player speaks. ``url``: where it listens, empty where nobody calls it.

    It has a table of descriptors of its own, as a process of its own would.
    """

    name: str
    identity: SvidSource
    url: str = ""
    methods: Mapping[str, rpc.Method] = field(default_factory=dict)
    descriptors: Descriptors = field(default_factory=Descriptors)
    server: rpc.Server | None = None
    paused: bool = False
    clients: dict[int, rpc.Client] = field(default_factory=dict)

    @property
    def unix(self) -> bool:
        """Whether descriptors travel."""
        return self.url.startswith("unix:")

    async def start(self) -> None:
        """Listen."""
        if self.url and self.server is None:
            self.server = rpc.Server(
                self.url, self.methods, identity=self.identity, descriptors=self.descriptors
            )
            await self.server.start()

    async def stop(self) -> None:
        """End as a process that is killed: all connections break."""
        path = Path(self.url.removeprefix("unix://"))
        if self.server is not None and self.unix and path.exists():
            self.dead.unlink(missing_ok=True)
            self.dead.hardlink_to(path)  # a killed process leaves its socket, and nobody listens there
        server, self.server = self.server, None
        clients, self.clients = self.clients, {}
        for client in clients.values():
            await client.aclose(0)
        if server is not None:
            for connection in list(server._connections):
                connection.wire.abort(Unavailable("killed"))
            await server.aclose(0)

    @property
    def dead(self) -> Path:
        """Where the socket of a killed role is kept."""
        return Path(self.url.removeprefix("unix://") + ".dead")

    @property
    def socket(self) -> Path:
        """The socket's file, whether somebody listens there or not."""
        return self.dead if self.server is None else Path(self.url.removeprefix("unix://"))

    async def pause(self) -> None:
        """Be gone for a moment."""
        self.paused = self.server is not None
        await self.stop()

    async def resume(self) -> None:
        """Come back from a pause; who was dead before stays so."""
        if self.paused:
            await self.start()

    async def client(self, url: str, conn: int) -> rpc.Client:
        """Return the connection to ours that stands for a recorded one."""
        client = self.clients.get(conn)
        if client is None or client.closed:
            client = self.clients[conn] = await rpc.connect(
                url, identity=self.identity, timeout=5, descriptors=self.descriptors
            )
        return client

    async def aclose(self) -> None:
        """End."""
        await self.stop()
        await asyncio.sleep(0)
        self.descriptors.close()
