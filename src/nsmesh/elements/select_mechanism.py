"""SelectMechanism: the server's half of the negotiation of a mechanism."""

from __future__ import annotations

from collections.abc import Iterable

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Invalid, MeshError
from nsmesh.core.mechanism import (
    SERVER_INTERFACE,
    UPSTREAM,
    MechanismPlugin,
    by_type,
    carries,
    lower_mtu,
    note_interface,
    tunnels,
)
from nsmesh.core.payload import check_payload
from nsmesh.model.messages import IP, Connection, Mechanism, NetworkServiceRequest


class SelectMechanism(Element):
    """Agrees to a mechanism: the one that was agreed to before, else the first preference that works here.

    After:  Begin
    Reads:  preferences
    Writes: mechanism; the MTU, where the mechanism has a limit; the segment's metric ``server_interface``
            on the way back; UPSTREAM in the state
    Close:  passes on
    """

    after = ("Begin",)

    def __init__(self, plugins: Iterable[MechanismPlugin]) -> None:
        plugins = list(plugins)
        self._plugins = by_type(plugins)
        self._tunnels = tunnels(plugins)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Agree, pass on, note the interface."""
        connection = request.connection
        check_payload(connection)
        chosen = self._agree(request)
        connection.mechanism.CopyFrom(chosen)
        call.state.set(UPSTREAM, chosen.type)
        tunnel = self._tunnels.get(chosen.type)
        largest = tunnel.largest(chosen) if tunnel is not None else 0
        lower_mtu(connection.context, largest)
        answer = await next.request(call, request)
        lower_mtu(answer.context, largest)
        plugin = self._plugins.get(answer.mechanism.type)
        if plugin is not None:
            note_interface(answer, SERVER_INTERFACE, plugin.describe(answer.mechanism))
        return answer

    def _agree(self, request: NetworkServiceRequest) -> Mechanism:
        connection = request.connection
        if connection.HasField("mechanism") and connection.mechanism.type:
            plugin = self._plugins.get(connection.mechanism.type)
            if plugin is None:
                raise Invalid(
                    f"unsupported mechanism {connection.mechanism.type}: here is {self._known()}",
                    remedy="ask again with the mechanism unset",
                )
            self._check(plugin, connection)
            return plugin.accept(connection.mechanism, connection)
        refused: list[str] = []
        for preference in request.mechanism_preferences:
            plugin = self._plugins.get(preference.type)
            if plugin is None:
                refused.append(f"{preference.type}: not supported here")
                continue
            try:
                self._check(plugin, connection)
                return plugin.accept(preference, connection)
            except MeshError as error:
                refused.append(f"{preference.type}: {error}")
        if not refused:
            raise Invalid(
                "the Request offers no mechanism",
                remedy=f"put a mechanism preference into it; here is {self._known()}",
            )
        raise Invalid(
            f"unsupported mechanism: {'; '.join(refused)}", remedy=f"offer what is here: {self._known()}"
        )

    def _check(self, plugin: MechanismPlugin, connection: Connection) -> None:
        if plugin.type in self._tunnels and not carries(plugin, connection):
            raise Invalid(
                f"{plugin.type} carries {' and '.join(plugin.payloads)}, "
                f"and the payload is {connection.payload or IP}",
                remedy="offer a mechanism that carries it",
            )

    def _known(self) -> str:
        return ", ".join(self._plugins) or "none"
