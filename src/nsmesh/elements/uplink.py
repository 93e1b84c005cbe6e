"""Uplink: what an endpoint's answer means on this node, where it gives out a VLAN."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Invalid
from nsmesh.core.mechanism import MechanismPlugin, lower_mtu
from nsmesh.model.messages import VLAN, Connection, Mechanism, NetworkServiceRequest
from nsmesh.model.vlan import VIA
from nsmesh.model.wire import TunnelPort
from nsmesh.model.wiring import Side


@runtime_checkable
class LeadsOut(Protocol):
    """The plug-in of the mechanism VLAN."""

    def port(self, connection: Connection, mechanism: Mechanism, side: Side) -> TunnelPort:
        """Return the VLAN on what of this node leads to it."""
        ...


class Uplink(Element):
    """Lowers the MTU to that of what leads to the VLAN, and keeps the client's labels.

    The endpoint answers with the label ``via`` alone, which the client's own stand beside again: by them its
    service is chosen, should the endpoint be lost.

    After:  Begin, OfferMechanisms
    Reads:  the answer's mechanism and label ``via``
    Writes: MTU and labels of the answer
    Close:  passes on
    """

    after = ("Begin", "OfferMechanisms")

    def __init__(self, plugins: Iterable[MechanismPlugin]) -> None:
        found = next((plugin for plugin in plugins if plugin.type == VLAN), None)
        self._plugin = found if isinstance(found, LeadsOut) else None  # 10 us: not for each Request

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on; where a VLAN comes back, look at the way to it."""
        if self._plugin is None:
            return await next.request(call, request)
        labels = dict(request.connection.labels)
        answer = await next.request(call, request)
        if answer.mechanism.type == VLAN:
            if not answer.labels.get(VIA):
                raise Invalid(
                    f"endpoint {answer.network_service_endpoint_name} gives out a VLAN and not the way to it",
                    remedy="it has to answer with the label via",
                )
            lower_mtu(answer.context, self._plugin.port(answer, answer.mechanism, Side.ENDPOINT).mtu)
            for name, value in labels.items():
                if name not in answer.labels:
                    answer.labels[name] = value
        return answer
