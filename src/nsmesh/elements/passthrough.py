"""Passthrough: an endpoint in the middle of a chain asks for the service again, under its own labels."""

from __future__ import annotations

from collections.abc import Mapping

from nsmesh.core.call import Call, Key
from nsmesh.core.codecs import TEXT
from nsmesh.core.element import Element, Handler
from nsmesh.model.messages import Connection, NetworkServiceRequest

BEHIND: Key[str] = Key("endpoint-behind", TEXT)
"""In ``call.state``: the name of the endpoint that the next part of the chain chose."""


class Passthrough(Element):
    """Puts the endpoint's own labels in place of the client's and lets the next endpoint be chosen.

    The client gets its labels and its endpoint's name (which is ours) back. Stands in the client half, so
    that a reselection of that half forgets the endpoint behind.

    After:  Begin
    Writes: labels, endpoint name; on the way back the client's
    Leaves: the name of the endpoint behind, per connection
    Close:  under that name and the own labels
    """

    after = ("Begin", "BeginClient")

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._labels = dict(labels)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Swap, pass on, swap back."""
        connection = request.connection
        labels, name = dict(connection.labels), connection.network_service_endpoint_name
        self._swap(connection, self._labels, call.state.get(BEHIND) or "")
        answer = await next.request(call, request)
        call.state.set(BEHIND, answer.network_service_endpoint_name)
        self._swap(answer, labels, name)
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Swap, pass on."""
        self._swap(connection, self._labels, call.state.pop(BEHIND) or "")
        await next.close(call, connection)

    @staticmethod
    def _swap(connection: Connection, labels: Mapping[str, str], name: str) -> None:
        connection.ClearField("labels")
        connection.labels.update(labels)
        connection.network_service_endpoint_name = name
