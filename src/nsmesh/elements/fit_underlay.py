"""FitUnderlay: a tunnel is agreed on no wider than what passes between the two nodes."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.mechanism import MechanismPlugin, note_interface
from nsmesh.core.paths import UNDERLAY, Fit, Paths
from nsmesh.core.tunnelling import LEAST_MTU, MOST_MTU, MTU, SRC_IP, Tunnelling, number
from nsmesh.model.messages import REMOTE, Connection, Mechanism, NetworkServiceRequest

log = structlog.get_logger()


class FitUnderlay(Element):
    """Lowers the MTU in what another node offers, or has agreed to, to what passes between the two.

    Before the first tunnel with a node this is tried; see :mod:`nsmesh.datapath.path_mtu`. Who serves does it
    for both: what it agrees to counts on both nodes.

    After:  Begin
    Reads:  preferences, mechanism
    Writes: their parameter ``MTU``; the segment's metric ``underlay`` where the way is narrower than the link
    Close:  passes on
    """

    after = ("Begin",)

    def __init__(self, plugins: Iterable[MechanismPlugin], paths: Paths | None) -> None:
        self._tunnels = {plugin.type: plugin for plugin in plugins if isinstance(plugin, Tunnelling)}
        self._paths = paths

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Lower, pass on, note what was found."""
        offered: list[Mechanism] = list(request.mechanism_preferences)
        if request.connection.HasField("mechanism"):
            offered.append(request.connection.mechanism)
        narrow = None
        for mechanism in offered:
            if mechanism.cls == REMOTE and mechanism.type in self._tunnels:
                narrow = await self._lower(mechanism) or narrow
        answer = await next.request(call, request)
        if self._paths is not None and offered and offered[0].cls == REMOTE:
            _note(answer, narrow)
        return answer

    async def _lower(self, mechanism: Mechanism) -> Fit | None:
        """Lower what one mechanism says to what fits; return what that is where the link says more."""
        peer = mechanism.parameters.get(SRC_IP, "")
        tunnel = self._tunnels[mechanism.type]
        if self._paths is None or not peer:
            return None
        try:
            fit = await self._paths.towards(peer)
            if not fit.lacking:
                return None
            fitting = tunnel.own_mtu(mechanism) - fit.lacking
            said = number(mechanism, MTU, LEAST_MTU, MOST_MTU, fitting)
        except MeshError as error:  # what is wrong is told where the mechanism is agreed on
            log.debug("what fits was not found", element="fit_underlay", peer=peer, error=str(error))
            return None
        mechanism.parameters[MTU] = str(min(fitting, said))
        return fit


def _note(answer: Connection, narrow: Fit | None) -> None:
    segments = answer.path.path_segments
    if narrow is not None:
        note_interface(answer, UNDERLAY, str(narrow))
    elif answer.path.index < len(segments):
        segments[answer.path.index].metrics.pop(UNDERLAY, None)
