"""Clients of a mesh on this host: who asks for what, into which namespace, and how it stands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from nsmesh.core.begin import BeginClient
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain
from nsmesh.core.errors import Conflict, Internal, MeshError, NotFound
from nsmesh.core.scope import Scope
from nsmesh.model.messages import LOCAL, Connection, Mechanism, NetworkServiceRequest
from nsmesh.model.nsurl import NetworkServiceUrl
from nsmesh.standalone.events import Events

log = structlog.get_logger()

TRY = 15.0
"""Seconds that one Request may take."""
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two tries of a wire that is to be kept."""


@dataclass(slots=True)
class Wire:
    """One connection that a client asks for. ``state``: connecting, up, failed or closed."""

    id: str
    url: NetworkServiceUrl
    state: str = "connecting"
    error: MeshError | None = None
    tries: int = 0
    took: float = 0.0


@dataclass(slots=True)
class Client:
    """One client: a name, a namespace (path), its wires in order."""

    name: str
    netns: str
    chain: Chain
    leave: contextlib.AsyncExitStack
    wires: dict[str, Wire] = field(default_factory=dict)
    busy: asyncio.Task[None] | None = None

    @property
    def state(self) -> str:
        """``up`` when all wires are, else what the first other one is."""
        return next((wire.state for wire in self.wires.values() if wire.state != "up"), "up")

    def connection(self, wire: Wire) -> Connection | None:
        """Return the connection of a wire as it was last agreed, or None."""
        begin = next(element for element in self.chain.elements if isinstance(element, BeginClient))
        life = begin.life(wire.id)
        return life.connection if life is not None else None


class Clients:
    """All clients that this daemon speaks for. ``make`` builds the chain of a client by name."""

    def __init__(self, scope: Scope, events: Events, make: Callable[[str], Chain]) -> None:
        self.scope = scope
        self.events = events
        self._make = make
        self.known: dict[str, Client] = {}

    async def add(self, name: str, netns: str) -> Client:
        """Make a client, or return the one of that name; raises Conflict if that is elsewhere."""
        client = self.known.get(name)
        if client is not None:
            if client.netns != netns:
                raise Conflict(
                    f"a client {name} exists in {client.netns}", remedy="give another name with --name"
                )
            return client
        stack = contextlib.AsyncExitStack()
        chain = self._make(name)
        await stack.enter_async_context(chain.running())
        client = self.known[name] = Client(name, netns, chain, stack)
        return client

    async def connect(self, client: Client, url: NetworkServiceUrl) -> Wire:
        """Ask once for one wire; raises the error of the Request, and forgets a wire that never was."""
        wire = self._wire(client, url)
        try:
            await self._try(client, wire)
        except BaseException:
            client.wires.pop(wire.id, None)
            raise
        return wire

    def keep(self, client: Client, urls: list[NetworkServiceUrl]) -> None:
        """Ask for wires one after another, each until it is there, in the background."""
        wires = [self._wire(client, url) for url in urls]
        client.busy = self.scope.spawn(self._keep(client, wires), name=f"client {client.name}")

    async def settled(self, client: Client) -> None:
        """Wait until all wires of a client are up; cancelling the waiter leaves the work alone."""
        if client.busy is not None:
            await asyncio.wait([client.busy])

    def _wire(self, client: Client, url: NetworkServiceUrl) -> Wire:
        for wire in client.wires.values():
            if url.interface and wire.url.interface == url.interface:
                raise Conflict(
                    f"client {client.name} has an interface {url.interface} already (connection {wire.id})",
                    remedy=f"choose another interface name, or: nsm disconnect {wire.id}",
                )
        number = 0
        while (wire_id := f"{client.name}-{number}") in client.wires:
            number += 1
        wire = client.wires[wire_id] = Wire(wire_id, url)
        return wire

    async def _keep(self, client: Client, wires: list[Wire]) -> None:
        for wire in wires:
            while wire.state != "up":
                try:
                    await self._try(client, wire)
                except MeshError as error:
                    if wire.tries == 1 or wire.error is None or str(error) != str(wire.error):
                        self.events.add(
                            "request",
                            f"{wire.id}: {error.what}",
                            connection=wire.id,
                            failed=True,
                            remedy=error.remedy,
                        )
                    wire.error = error
                    await asyncio.sleep(PAUSES[min(wire.tries, len(PAUSES)) - 1])

    async def _try(self, client: Client, wire: Wire) -> None:
        wire.tries += 1
        start = self.scope.clock.monotonic()
        request = NetworkServiceRequest(
            connection=Connection(id=wire.id, network_service=wire.url.service, labels=dict(wire.url.labels)),
            mechanism_preferences=[
                Mechanism(cls=LOCAL, type=wire.url.mechanism, parameters=self._parameters(client, wire))
            ],
        )
        call = Call(peer=Peer(in_process=True)).within(TRY)
        try:
            async with asyncio.timeout(TRY):
                await client.chain.request(call, request)
        except MeshError as error:
            wire.state, wire.error = "failed", error
            raise
        except TimeoutError as error:
            wire.state = "failed"
            wire.error = Internal(f"the Request for {wire.url} was not answered in {TRY:g} s")
            raise wire.error from error
        wire.took = self.scope.clock.monotonic() - start
        wire.state, wire.error = "up", None
        log.info("wire up", connection=wire.id, client=client.name, ms=round(wire.took * 1e3, 1))

    @staticmethod
    def _parameters(client: Client, wire: Wire) -> dict[str, str]:
        parameters = {"inodeURL": f"file://{client.netns}"}
        if wire.url.interface:
            parameters["name"] = wire.url.interface
        return parameters

    def find(self, connection: str) -> tuple[Client, Wire]:
        """Return client and wire of a connection id; raises NotFound."""
        for client in self.known.values():
            wire = client.wires.get(connection)
            if wire is not None:
                return client, wire
        raise NotFound(f"there is no connection {connection}", remedy="list them with: nsm get connections")

    async def disconnect(self, client: Client, wire: Wire) -> None:
        """Close one wire; it is forgotten whatever the mesh says."""
        client.wires.pop(wire.id, None)
        connection = client.connection(wire)
        wire.state = "closed"
        if connection is not None:
            copy = Connection()
            copy.CopyFrom(connection)
            await client.chain.close(Call(peer=Peer(in_process=True)).within(TRY), copy)

    async def remove(self, name: str) -> None:
        """Close all wires of a client and forget it; one that is not known is gone already."""
        client = self.known.pop(name, None)
        if client is None:
            return
        if client.busy is not None:
            client.busy.cancel()
            await asyncio.wait([client.busy])
        try:
            for wire in list(client.wires.values()):
                try:
                    await self.disconnect(client, wire)
                except MeshError as error:
                    log.warning("close failed", connection=wire.id, error=str(error))
        finally:
            await client.leave.aclose()

    async def aclose(self) -> None:
        """Remove all, many at a time."""
        await asyncio.gather(*(self.remove(name) for name in list(self.known)))
