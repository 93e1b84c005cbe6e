"""TranslateMechanism: between two negotiations, so that neither side sees the other's."""

from __future__ import annotations

from nsmesh.core.call import Call
from nsmesh.core.deciding import DOWNSTREAM
from nsmesh.core.element import Element, Handler
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest


class TranslateMechanism(Element):
    """Takes the upstream mechanism and preferences out of the Request, and puts them back into the answer.

    Downstream sees what it agreed to before, if anything. Stands in the server half of a forwarder, in front
    of Connect (CrossConnectWire reads what it leaves), or in the client half of a passthrough endpoint.

    After:  Begin, CrossConnectWire
    Leaves: DOWNSTREAM in the state
    Close:  with the downstream mechanism
    """

    after = ("Begin", "BeginClient", "SelectMechanism", "CrossConnectWire")

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Swap on the way in, remember and swap back on the way out."""
        upstream = copy_of(request.connection.mechanism)
        present = request.connection.HasField("mechanism")
        del request.mechanism_preferences[:]
        _replace(request.connection, call.state.get(DOWNSTREAM))
        answer = await next.request(call, request)
        if answer.HasField("mechanism"):
            call.state.set(DOWNSTREAM, copy_of(answer.mechanism))
        else:
            call.state.pop(DOWNSTREAM)
        _replace(answer, upstream if present else None)
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Swap, pass on, forget."""
        _replace(connection, call.state.pop(DOWNSTREAM))
        await next.close(call, connection)


def _replace(connection: Connection, mechanism: Mechanism | None) -> None:
    if mechanism is None:
        connection.ClearField("mechanism")
    else:
        connection.mechanism.CopyFrom(mechanism)
