"""Clients of a mesh on this host: who asks for what, into which namespace, and how it stands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from nsmesh.chains.liveness import Liveness
from nsmesh.core.element import Chain
from nsmesh.core.errors import Conflict, MeshError, NotFound
from nsmesh.core.scope import Scope
from nsmesh.core.turns import Turns
from nsmesh.model.nsurl import NetworkServiceUrl
from nsmesh.standalone.client import Client, Wire
from nsmesh.standalone.events import Events
from nsmesh.standalone.lingering import Lingering

log = structlog.get_logger()

PASS = 0.5
"""Seconds until the first packet of a new wire must come back: a function in the middle may be setting up."""
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two tries of a wire that is to be kept."""


class Clients:
    """All clients that this daemon speaks for. ``make`` builds a client's chain, by name and namespace."""

    def __init__(self, scope: Scope, events: Events, make: Callable[[str, str], Chain]) -> None:
        self.scope = scope
        self.events = events
        self._make = make
        self._turns = Turns()
        self._lingering = Lingering(scope)
        self.known: dict[str, Client] = {}

    async def add(self, name: str, netns: str) -> Client:
        """Make a client, or return the one of that name; raises Conflict if that is elsewhere."""
        async with self._turns.turn(name):
            client = self.known.get(name)
            if client is None:
                await self._lingering.recall(name)
                stack = contextlib.AsyncExitStack()
                chain = self._make(name, netns)
                await stack.enter_async_context(chain.running())
                client = self.known[name] = Client(name, netns, chain, stack)
        if client.netns != netns:
            raise Conflict(
                f"a client {name} exists in {client.netns}", remedy="give another name with --name"
            )
        return client

    async def connect(self, client: Client, url: NetworkServiceUrl) -> Wire:
        """Ask once for one wire; raises the error of the Request, and forgets a wire that never was.

        Cancelling takes back what was asked.
        """
        wire = self._wire(client, url)
        wire.task = self.scope.spawn(self._once(client, wire), name=f"connect {wire.id}")
        try:
            await asyncio.wait((wire.task,))
        except BaseException:
            client.wires.pop(wire.id, None)
            await wire.stop()
            raise
        if wire.state != "up":
            client.wires.pop(wire.id, None)
            raise wire.error or Conflict(f"connection {wire.id} was closed while it was being made")
        return wire

    def keep(self, client: Client, urls: list[NetworkServiceUrl]) -> None:
        """Ask for wires, each until it is there, in the background."""
        for url in urls:
            wire = self._wire(client, url)
            wire.task = self.scope.spawn(self._keep(client, wire), name=f"keep {wire.id}")

    async def settled(self, client: Client) -> None:
        """Wait until all wires of a client are up or closed; cancelling the waiter leaves the work alone."""
        tasks = [wire.task for wire in client.wires.values() if wire.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    def _wire(self, client: Client, url: NetworkServiceUrl) -> Wire:
        for wire in client.wires.values():
            if url.interface and wire.url.interface == url.interface:
                raise Conflict(
                    f"client {client.name} has an interface {url.interface} already (connection {wire.id})",
                    remedy=f"choose another interface name, or: nsm disconnect {wire.id}",
                )
        wire_id, number = client.resumed(url), 0
        taken = {*client.wires, *(one.id for one in client.unclaimed)}
        while not wire_id or wire_id in client.wires:
            name, number = f"{client.name}-{number}", number + 1
            wire_id = "" if name in taken else name
        wire = client.wires[wire_id] = Wire(wire_id, url)
        return wire

    async def _once(self, client: Client, wire: Wire) -> None:
        with contextlib.suppress(MeshError):  # it is kept in the wire
            await self._try(client, wire)

    async def _keep(self, client: Client, wire: Wire) -> None:
        told = ""
        while wire.state != "up":
            try:
                await self._try(client, wire)
            except MeshError as error:
                if str(error) != told:
                    told = str(error)
                    text = f"{wire.id}: {error.what}"
                    self.events.add("request", text, connection=wire.id, failed=True, remedy=error.remedy)
                await asyncio.sleep(PAUSES[min(wire.tries, len(PAUSES)) - 1])

    async def _try(self, client: Client, wire: Wire) -> None:
        wire.tries += 1
        passing = Liveness(lambda: client.netns, PASS)
        start = self.scope.clock.monotonic()
        try:
            connection = await client.request(wire)
        except MeshError as error:
            wire.state, wire.error = "failed", error
            raise
        wire.took = self.scope.clock.monotonic() - start
        if await passing(connection):
            wire.passes = self.scope.clock.monotonic() - start
        wire.state, wire.error = "up", None
        passes = round(wire.passes * 1e3, 1) if wire.passes else None
        took = round(wire.took * 1e3, 1)
        log.info("wire up", connection=wire.id, client=client.name, ms=took, passes_ms=passes)

    def find(self, connection: str) -> tuple[Client, Wire]:
        """Return client and wire of a connection id; raises NotFound."""
        for client in self.known.values():
            wire = client.wires.get(connection)
            if wire is not None:
                return client, wire
        raise NotFound(f"there is no connection {connection}", remedy="list them with: nsm get connections")

    async def disconnect(self, client: Client, wire: Wire) -> None:
        """Close one wire, also one that is being made; it is forgotten whatever the mesh says.

        What the mesh does not answer it is asked again and again.
        """
        client.wires.pop(wire.id, None)
        await wire.stop()
        await client.close(wire)

    async def remove(self, name: str, why: MeshError | None = None) -> None:
        """Close all wires of a client and forget it; one that is not known is gone already.

        A Close that is not answered goes on in the background.

        ``why`` is told to those who are asking for a wire of it just now.
        """
        async with self._turns.turn(name):
            client = self.known.pop(name, None)
            if client is None:
                return
            for wire in client.wires.values():
                wire.error = why or wire.error
            try:
                await asyncio.gather(*(self._leave(client, wire) for wire in list(client.wires.values())))
            finally:
                await self._lingering.end(name, client.chain, client.leave)

    async def close_unclaimed(self) -> list[str]:
        """Close what earlier daemons were granted and nobody wants any more; return it in words."""
        gone = []
        for client in list(self.known.values()):
            for one in client.unclaimed:
                gone.append(f"connection {one.id}")
                await self._leave(client, Wire(one.id, NetworkServiceUrl("kernel", one.network_service)))
        return gone

    async def _leave(self, client: Client, wire: Wire) -> None:
        try:
            await self.disconnect(client, wire)
        except MeshError as error:
            log.warning("close failed", connection=wire.id, error=str(error))

    async def rest(self) -> None:
        """Ask no more and forget all, without a Close: another daemon goes on with them."""
        for client in self.known.values():
            for wire in client.wires.values():
                await wire.stop()
            await client.leave.aclose()
        self.known.clear()
        await self._lingering.aclose()

    async def aclose(self) -> None:
        """Remove all, many at a time."""
        await asyncio.gather(*(self.remove(name) for name in list(self.known)))
        await self._lingering.aclose()
