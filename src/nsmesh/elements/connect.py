"""Connect: the end of a server chain that goes on to another process."""

from __future__ import annotations

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.life import REACHED
from nsmesh.core.peering import HOP, NEXT_HOP, Hop
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkServiceRequest


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

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:  # noqa: ARG002
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

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:  # noqa: ARG002
        """Pass a copy on."""
        await self.client.close(self._onward(call, Hop()), copy_of(connection))
