"""Connect: the end of a server chain that goes on to another process."""

from __future__ import annotations

import structlog

from nsmesh.core.call import Call, State
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.life import BUDGET, LIFE, OWN, REACHED
from nsmesh.core.peering import HOP, NEXT_HOP, Hop
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkServiceRequest

log = structlog.get_logger()


class Connect(Element):
    """Passes Request and Close into a client chain; what stands behind it in the server chain is not asked.

    ``TARGET`` in the call says where the client chain shall go.

    After:  Begin, Monitor
    Leaves: REACHED and NEXT_HOP in the state of the server half
    Close:  passes on
    """

    after = ("Begin", "Monitor")

    def __init__(self, client: Handler) -> None:
        self.client = client

    @staticmethod
    def _onward(call: Call, hop: Hop) -> Call:
        """Return the call for the other half, which has its own state; what came along was for this one."""
        return Call(call.deadline, call.peer, values={**call.values, HOP: hop})

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:  # noqa: ARG002 - the face asks for it
        """Pass a copy on and remember at once what was reached."""
        hop = Hop()
        try:
            answer = await self.client.request(self._onward(call, hop), copy_of(request))
        finally:
            if hop.handler is not None:
                call.state.set(NEXT_HOP, hop.handler)
        if hop.handler is None:
            call.state.set(NEXT_HOP, self.client)  # it goes nowhere else: the hop is the client itself
        call.state.set(REACHED, copy_of(answer))
        return answer

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - its connection has it
        """Close the client half, whose life would go on without us; one that is over has nothing to close."""
        life = state.get(LIFE)
        known = (life.connection if life is not None else None) or state.get(REACHED)
        if known is None:
            return
        try:
            await self.client.close(Call(values={OWN: True, HOP: Hop()}).within(BUDGET), copy_of(known))
        except MeshError as error:
            log.warning("close of the client half failed", connection=known.id, error=str(error))

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:  # noqa: ARG002 - the face asks for it
        """Pass a copy on."""
        await self.client.close(self._onward(call, Hop()), copy_of(connection))
