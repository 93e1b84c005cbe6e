"""OfferMechanisms: the client's half of the negotiation of a mechanism."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Refused
from nsmesh.core.mechanism import (
    CLIENT_INTERFACE,
    NEAR_MAC,
    REFUSED,
    UPSTREAM,
    MechanismPlugin,
    by_type,
    carries,
    handing,
    lower_mtu,
    note_interface,
    tunnels,
)
from nsmesh.core.peering import TARGET
from nsmesh.model.messages import LOCAL, REMOTE, VLAN, Connection, NetworkServiceRequest
from nsmesh.model.wiring import Side


class OfferMechanisms(Element):
    """Offers the next hop the mechanisms that can reach it, in the order of the plug-ins.

    A next hop on a unix socket or in this process is on the same machine: LOCAL mechanisms. Any other is
    elsewhere: REMOTE ones. VLAN is for both: it leads to neither, but out of the mesh. Where ``TARGET`` does
    not say, what was agreed to before does, else all are offered.

    After:  Begin, TranslateMechanism
    Reads:  TARGET, mechanism, payload, NEAR_MAC, REFUSED, UPSTREAM
    Writes: preferences; the MTU, where a mechanism has a limit; on the way back the segment's metric
            ``client_interface``
    Close:  passes on
    """

    after = ("Begin", "BeginClient", "TranslateMechanism")

    def __init__(self, plugins: Iterable[MechanismPlugin]) -> None:
        plugins = list(plugins)
        self._plugins = by_type(plugins)
        self._tunnels = tunnels(plugins)
        self._handing = handing(plugins)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Offer, pass on, note the interface."""
        connection = request.connection
        wanted = _class(call) or connection.mechanism.cls
        offers = (
            plugin.offer(connection)
            for plugin in self._in_order(call)
            if (not wanted or wanted == plugin.cls or plugin.type == VLAN)
            and self._may(call, plugin, connection)
        )
        del request.mechanism_preferences[:]
        request.mechanism_preferences.extend(offer for offer in offers if offer is not None)
        if not request.mechanism_preferences:
            raise self._nothing(call, connection, wanted)
        if self._tunnels:
            self._introduce(call, request)
            if wanted == REMOTE:
                self._fit(request)
        answer = await next.request(call, request)
        plugin = self._plugins.get(answer.mechanism.type)
        if plugin is not None:
            note_interface(answer, CLIENT_INTERFACE, plugin.describe(answer.mechanism))
            tunnel = self._tunnels.get(plugin.type)
            lower_mtu(answer.context, tunnel.largest(answer.mechanism) if tunnel is not None else 0)
        return answer

    def _in_order(self, call: Call) -> list[MechanismPlugin]:
        """Return the plug-ins; first the one by which client and endpoint meet without a wire."""
        upstream = call.state.get(UPSTREAM)
        meeting = self._handing.get(upstream or "")
        found = [
            plugin
            for kind, plugin in self._plugins.items()
            if kind == upstream or kind not in self._handing or not self._handing[kind].hands_on
        ]
        return found if meeting is None else sorted(found, key=lambda plugin: plugin is not meeting)

    def _may(self, call: Call, plugin: MechanismPlugin, connection: Connection) -> bool:
        """Whether a tunnel carries the payload, and the kernel here has not refused it before."""
        if plugin.type not in self._tunnels:
            return True
        return carries(plugin, connection) and plugin.type not in (call.state.get(REFUSED) or ())

    def _fit(self, request: NetworkServiceRequest) -> None:
        """Lower the MTU to what fits through the widest tunnel that is offered: not all servers do so."""
        offered = request.mechanism_preferences
        widest = [
            self._tunnels[offer.type].largest(offer) for offer in offered if offer.type in self._tunnels
        ]
        lower_mtu(request.connection.context, max(widest, default=0))

    def _introduce(self, call: Call, request: NetworkServiceRequest) -> None:
        """Tell the other node the MAC of the interface on this one."""
        mac = call.state.get(NEAR_MAC) or ""
        agreed = [request.connection.mechanism] if request.connection.HasField("mechanism") else []
        for mechanism in (*request.mechanism_preferences, *agreed):
            tunnel = self._tunnels.get(mechanism.type)
            if tunnel is not None:
                tunnel.introduce(mechanism, Side.CLIENT, mac)

    def _nothing(self, call: Call, connection: Connection, wanted: str) -> Refused:
        target = call.get(TARGET)
        place = target if isinstance(target, str) else "the next hop"
        endpoint = connection.network_service_endpoint_name or connection.network_service
        has = ", ".join(f"{plugin.type} ({plugin.cls})" for plugin in self._plugins.values()) or "none"
        return Refused(
            f"no mechanism to offer to {place} for {endpoint}: {wanted or 'any'} is wanted"
            f"{f' for payload {connection.payload}' if connection.payload else ''}, here is {has}",
            remedy="LOCAL mechanisms need a next hop on a unix socket, REMOTE ones a forwarder that has them",
        )


def _class(call: Call) -> str:
    target = call.get(TARGET)
    if target is None:
        return ""
    if not isinstance(target, str):
        return LOCAL
    return LOCAL if urlsplit(target).scheme in {"unix", "inode"} else REMOTE
