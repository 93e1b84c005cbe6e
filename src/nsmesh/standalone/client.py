"""One client of a mesh on this host: its wires, what it asks for them, and how each stands."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain
from nsmesh.core.errors import MeshError, TimedOut
from nsmesh.elements.heal import Heal
from nsmesh.mechanisms.vhost_user import CLIENT as MACHINE_CALLS
from nsmesh.mechanisms.vhost_user import VhostUser
from nsmesh.model.messages import LOCAL, VHOST_USER, Connection, Mechanism, NetworkServiceRequest
from nsmesh.model.nsurl import NetworkServiceUrl

TRY = 15.0
"""Seconds that one Request may take."""


@dataclass(slots=True)
class Wire:
    """One connection that a client asks for. ``state``: connecting, up, failed or closed.

    ``task`` asks for it, once or until it is there. ``took``: seconds of the Request that succeeded;
    ``passes``: seconds from its begin until the first packet came back, None when none did for a while.
    """

    id: str
    url: NetworkServiceUrl
    state: str = "connecting"
    error: MeshError | None = None
    tries: int = 0
    took: float = 0.0
    passes: float | None = None
    task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Ask no more."""
        self.state = "closed"
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait((self.task,))


@dataclass(slots=True)
class Client:
    """One client: a name, a namespace (path), its wires in order."""

    name: str
    netns: str
    chain: Chain
    leave: contextlib.AsyncExitStack
    wires: dict[str, Wire] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """``up`` when all wires are, else what the first other one is."""
        states = (self.state_of(wire) for wire in self.wires.values())
        return next((state for state in states if state != "up"), "up")

    def state_of(self, wire: Wire) -> str:
        """Return the state of a wire; ``healing`` where it was up and the mesh looks for a new way."""
        if wire.state == "up" and (wire.id in self._heal.healing or self.connection(wire) is None):
            return "healing"
        return wire.state

    @property
    def _heal(self) -> Heal:
        return next(element for element in self.chain.elements if isinstance(element, Heal))

    @property
    def _begin(self) -> BeginClient:
        return next(element for element in self.chain.elements if isinstance(element, BeginClient))

    @property
    def unclaimed(self) -> list[Connection]:
        """What an earlier daemon was granted for this client and no wire of now stands for."""
        return [one for one in self._begin.connections if one.id not in self.wires]

    def resumed(self, url: NetworkServiceUrl) -> str:
        """Return the id of such a connection that is what ``url`` asks for, else nothing."""
        for one in sorted(self.unclaimed, key=lambda one: (len(one.id), one.id)):
            there = one.mechanism.parameters.get("name", "")
            if one.network_service == url.service and url.interface in {"", there}:
                return one.id
        return ""

    def connection(self, wire: Wire) -> Connection | None:
        """Return the connection of a wire as it was last agreed, or None."""
        life = self._begin.life(wire.id)
        return life.connection if life is not None else None

    async def request(self, wire: Wire) -> Connection:
        """Ask for a wire; raises the mesh's answer, or TimedOut."""
        request = NetworkServiceRequest(
            connection=Connection(id=wire.id, network_service=wire.url.service, labels=dict(wire.url.labels)),
            mechanism_preferences=[self._offer(wire)],
        )
        call = Call(peer=Peer(in_process=True)).within(TRY)
        try:
            async with asyncio.timeout(TRY):
                return await self.chain.request(call, request)
        except TimeoutError as error:
            raise TimedOut(
                f"the Request for {wire.url} was not answered in {TRY:g} s",
                remedy="see what the endpoint does: nsm logs",
            ) from error

    def _offer(self, wire: Wire) -> Mechanism:
        if wire.url.mechanism == VHOST_USER:
            # the switch listens: its socket stays the same, whatever becomes of the machine
            offer = VhostUser(mode=MACHINE_CALLS).offer(Connection(id=wire.id))
        else:
            offer = Mechanism(cls=LOCAL, type=wire.url.mechanism)
            offer.parameters["inodeURL"] = f"file://{self.netns}"
        if wire.url.interface:
            offer.parameters["name"] = wire.url.interface
        return offer

    async def close(self, wire: Wire) -> None:
        """End a wire, however far it is; raises MeshError where the mesh cannot say that it is closed."""
        await self.chain.close(Call(peer=Peer(in_process=True)).within(TRY), Connection(id=wire.id))
