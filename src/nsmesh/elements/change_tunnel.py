"""ChangeTunnel: another tunnel, or another name of the endpoint's interface, when that is taken."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import structlog

from nsmesh.core.call import Call
from nsmesh.core.deciding import DOWNSTREAM
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Exhausted
from nsmesh.core.life import REACHED
from nsmesh.core.mechanism import MechanismPlugin, tunnels
from nsmesh.datapath.base import TunnelTaken
from nsmesh.datapath.taken import InterfaceTaken
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest
from nsmesh.model.wiring import Side

log = structlog.get_logger()

TRIES = 8
"""Tunnels, or names, that are tried before a Request is refused."""


@runtime_checkable
class Naming(Protocol):
    """A mechanism whose plug-in generates names of interfaces."""

    def rename(self, mechanism: Mechanism, connection: Connection) -> Mechanism:
        """Return ``mechanism`` with another name in place of one that is taken."""
        ...


class ChangeTunnel(Element):
    """Sends a Request through again with another tunnel where the one agreed on belongs to another wire here.

    A tunnel (VXLAN: its VNI, WIREGUARD: its UDP port) must be free on both nodes, and each node knows only
    its own. Who serves offers itself another one; who asked proposes another one to who serves. Nobody above
    hears of it.

    The name of the endpoint's interface is generated, and may be that of an interface which nobody here
    knows of: the endpoint is asked again with another.

    After:  Begin, RoundRobin
    Reads:  mechanism, preferences, DOWNSTREAM
    Writes: the same, after a collision
    Close:  passes on
    """

    after = ("Begin", "RoundRobin")

    def __init__(self, plugins: Iterable[MechanismPlugin]) -> None:
        plugins = list(plugins)
        self._tunnels = tunnels(plugins)
        self._naming = {plugin.type: plugin for plugin in plugins if isinstance(plugin, Naming)}

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on; after a collision change the tunnel and pass on again."""
        if not self._tunnels and not self._naming:
            return await next.request(call, request)
        for left in reversed(range(TRIES)):
            attempt = copy_of(request)
            try:
                return await next.request(call, attempt)
            except TunnelTaken as error:
                if not self._tunnels:
                    raise
                log.info("tunnel is taken: try another", connection=request.connection.id, why=error.what)
                self._change(call, request)
            except InterfaceTaken as error:
                if not left or not self._rename(call, request):
                    raise
                log.info("name is taken: try another", connection=request.connection.id, why=error.what)
        raise Exhausted(
            f"no free tunnel was found for connection {request.connection.id} in {TRIES} tries",
            remedy="look for a program that makes very many VXLAN devices on the nodes at its ends",
        )

    def _rename(self, call: Call, request: NetworkServiceRequest) -> bool:
        """Agree on another name with the endpoint; return whether that can be done here."""
        agreed = call.state.get(DOWNSTREAM)
        plugin = self._naming.get(agreed.type) if agreed is not None else None
        if agreed is None or plugin is None:
            return False
        self._known_again(call, request)
        call.state.set(DOWNSTREAM, plugin.rename(agreed, request.connection))
        return True

    @staticmethod
    def _known_again(call: Call, request: NetworkServiceRequest) -> None:
        reached = call.state.get(REACHED)
        if reached is not None:  # the next hop has the connection: it is to know it again
            request.connection.path.CopyFrom(reached.path)
            request.connection.context.CopyFrom(reached.context)

    def _change(self, call: Call, request: NetworkServiceRequest) -> None:
        self._known_again(call, request)
        agreed = call.state.get(DOWNSTREAM)
        tunnel = self._tunnels.get(agreed.type) if agreed is not None else None
        if agreed is not None and tunnel is not None:
            call.state.set(DOWNSTREAM, tunnel.another(agreed, Side.CLIENT))
            return
        asked = [request.connection.mechanism] if request.connection.HasField("mechanism") else []
        for mechanism in (*asked, *request.mechanism_preferences):
            tunnel = self._tunnels.get(mechanism.type)
            if tunnel is not None:
                mechanism.CopyFrom(tunnel.another(mechanism, Side.ENDPOINT))
