"""One connection in one Begin, from its first Request to its Close: what is known of it, and asking again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nsmesh.core.call import Call, Peer, State
from nsmesh.core.element import Handler
from nsmesh.core.errors import TimedOut
from nsmesh.core.life import BUDGET, LIFE, OWN
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.messages import State as Condition

if TYPE_CHECKING:  # they are two halves of one machine
    from nsmesh.core.begin import Begin


class Living:
    """One connection between its first Request and its Close.

    ``wanted`` is set from a reselect's beginning until a new connection is there. ``wish`` is what
    the caller of a client's half asks for, while it is asked. What is kept for long is kept in its wire form,
    which takes a quarter of the memory of the message.
    """

    __slots__ = (
        *("_asking", "_connection", "_request"),
        *("begin", "id", "next", "peer", "state", "wanted", "wish"),
    )

    def __init__(self, begin: Begin, connection_id: str, next: Handler) -> None:
        self.begin = begin
        self.id = connection_id
        self.next = next
        self._connection: bytes | None = None
        self._request: bytes | None = None
        self.wanted: NetworkServiceRequest | None = None
        self.wish: Connection | None = None
        self._asking = 0
        self.peer = Peer()
        self.renew()

    @property
    def up(self) -> bool:
        """Whether it has been granted, and not ended since."""
        return self._connection is not None

    @property
    def connection(self) -> Connection | None:
        """See :attr:`nsmesh.core.life.Life.connection`; each time a copy."""
        return None if self._connection is None else Connection.FromString(self._connection)

    @connection.setter
    def connection(self, connection: Connection | None) -> None:
        self._connection = None if connection is None else connection.SerializeToString()

    @property
    def packed(self) -> tuple[bytes | None, bytes | None]:
        """Connection and request in their wire form."""
        return self._connection, self._request

    @property
    def request(self) -> NetworkServiceRequest | None:
        """What a re-request needs besides the connection; a copy each time."""
        return None if self._request is None else NetworkServiceRequest.FromString(self._request)

    @request.setter
    def request(self, request: NetworkServiceRequest) -> None:
        self._request = request.SerializeToString()

    def renew(self) -> None:
        """Begin with a state of its own."""
        self.state = State()
        self.state.set(LIFE, self)

    def over(self) -> None:
        """Let go of what refers back to us: what a connection held goes away now, not at the next sweep."""
        self.state.pop(LIFE)

    def call(self, peer: Peer | None = None) -> Call:
        """Return a call of our own, in the name of ``peer``, else of whoever called last."""
        return Call(peer=peer or self.peer, values={OWN: True})

    @property
    def asking(self) -> bool:
        """See :attr:`nsmesh.core.life.Life.asking`."""
        return self._asking > 0

    def keep(self) -> None:
        """See :meth:`nsmesh.core.life.Life.keep`."""
        if self.begin.holds(self):
            self.begin.keep(self)

    async def rerequest(self, *, reselect: bool = False) -> Connection | None:
        """See :meth:`nsmesh.core.life.Life.rerequest`."""
        self._asking += 1
        try:
            async with self.begin.turns.turn(self.id):
                return await self._rerequest(reselect=reselect)
        finally:
            self._asking -= 1

    async def _rerequest(self, *, reselect: bool) -> Connection | None:
        if not self.begin.holds(self):
            return None
        if reselect and self.up:
            self.wanted = self._reselecting()
            if not self.begin.passes_reselects:
                await self.begin.end(self)
        again = self._again()
        try:
            async with asyncio.timeout(BUDGET):
                return await self.begin.serve(self, self.call().within(BUDGET), again, wished=False)
        except TimeoutError as error:
            raise TimedOut(
                f"the re-request of connection {self.id} was not answered in {BUDGET:g} s"
            ) from error

    def _again(self) -> NetworkServiceRequest:
        if self.wanted is not None:
            return copy_of(self.wanted)
        again, connection = self.request, self.connection
        assert again is not None
        assert connection is not None
        again.connection.CopyFrom(connection)
        return again

    def _reselecting(self) -> NetworkServiceRequest:
        again, request = self._again(), self.request
        assert request is not None
        again.connection.ClearField("mechanism")
        again.connection.network_service_endpoint_name = ""
        if request.HasField("connection"):
            again.connection.payload = request.connection.payload  # the service's may have changed
        again.connection.state = Condition.RESELECT_REQUESTED
        return again

    async def close(self) -> None:
        """See :meth:`nsmesh.core.life.Life.close`."""
        async with self.begin.turns.turn(self.id):
            if self.begin.holds(self):
                await self.begin.leave(self, self.call())
