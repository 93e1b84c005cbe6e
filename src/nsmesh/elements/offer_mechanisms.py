"""OfferMechanisms: the client's half of the negotiation of a mechanism."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Refused
from nsmesh.core.mechanism import CLIENT_INTERFACE, MechanismPlugin, by_type, note_interface
from nsmesh.core.peering import TARGET
from nsmesh.model.messages import LOCAL, REMOTE, Connection, NetworkServiceRequest


class OfferMechanisms(Element):
    """Offers the next hop the mechanisms that can reach it, in the order of the plug-ins.

    A next hop on a unix socket or in this process is on the same machine: LOCAL mechanisms. Any other is
    elsewhere: REMOTE ones. Where ``TARGET`` does not say, what was agreed to before does, else all are
    offered.

    After:  Begin, TranslateMechanism
    Reads:  TARGET, mechanism
    Writes: preferences; the segment's metric ``client_interface`` on the way back
    Close:  passes on
    """

    after = ("Begin", "BeginClient", "TranslateMechanism")

    def __init__(self, plugins: Iterable[MechanismPlugin]) -> None:
        self._plugins = by_type(plugins)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Offer, pass on, note the interface."""
        connection = request.connection
        wanted = _class(call) or connection.mechanism.cls
        offers = (
            plugin.offer(connection)
            for plugin in self._plugins.values()
            if not wanted or plugin.cls == wanted
        )
        del request.mechanism_preferences[:]
        request.mechanism_preferences.extend(offer for offer in offers if offer is not None)
        if not request.mechanism_preferences:
            raise self._nothing(call, connection, wanted)
        answer = await next.request(call, request)
        plugin = self._plugins.get(answer.mechanism.type)
        if plugin is not None:
            note_interface(answer, CLIENT_INTERFACE, plugin.describe(answer.mechanism))
        return answer

    def _nothing(self, call: Call, connection: Connection, wanted: str) -> Refused:
        target = call.get(TARGET)
        place = target if isinstance(target, str) else "the next hop"
        endpoint = connection.network_service_endpoint_name or connection.network_service
        has = ", ".join(f"{plugin.type} ({plugin.cls})" for plugin in self._plugins.values()) or "none"
        return Refused(
            f"no mechanism to offer to {place} for {endpoint}: {wanted or 'any'} is wanted, here is {has}",
            remedy="LOCAL mechanisms need a next hop on a unix socket, REMOTE ones a forwarder that has them",
        )


def _class(call: Call) -> str:
    target = call.get(TARGET)
    if target is None:
        return ""
    if not isinstance(target, str):
        return LOCAL
    return LOCAL if urlsplit(target).scheme in {"unix", "inode"} else REMOTE
