"""NextMechanism: where this node's kernel refuses a tunnel, the next mechanism is tried."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from nsmesh.core.call import Call
from nsmesh.core.deciding import DOWNSTREAM
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError, Refused
from nsmesh.core.life import REACHED
from nsmesh.core.mechanism import REFUSED, UPSTREAM, MechanismPlugin, tunnels
from nsmesh.datapath.base import TunnelRefused, TunnelTaken
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkServiceRequest

log = structlog.get_logger()


class NextMechanism(Element):
    """Sends a Request through again without the mechanism that the kernel of this node would not make.

    Who serves passes over that preference of the other node; who asks offers it no more for this connection.
    When nothing is left, the error says what became of each.

    After:  Begin, ChangeTunnel
    Reads:  mechanism, preferences, UPSTREAM, DOWNSTREAM
    Writes: the same, after a refusal; REFUSED in the state
    Close:  passes on
    """

    after = ("Begin", "ChangeTunnel")

    def __init__(self, plugins: Iterable[MechanismPlugin]) -> None:
        self._tunnels = tunnels(plugins)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on; after a refusal leave that mechanism out and pass on again."""
        if not self._tunnels:
            return await next.request(call, request)
        refused: dict[str, str] = {}
        while True:
            attempt = copy_of(request)
            try:
                return await next.request(call, attempt)
            except TunnelTaken:
                raise
            except MeshError as error:
                kind = self._refused(call) if isinstance(error, TunnelRefused) else ""
                if not kind or kind in refused:
                    raise _all_of_it(request, refused, error) from error
                log.warning("mechanism refused: try the next", mechanism=kind, why=error.what)
                refused[kind] = str(error)
                if not self._leave_out(call, request, kind):
                    raise

    def _refused(self, call: Call) -> str:
        """Return the type of the tunnel that was to be made: towards the next node, else from the last."""
        agreed = call.state.get(DOWNSTREAM)
        kind = agreed.type if agreed is not None else ""
        return kind if kind in self._tunnels else call.state.get(UPSTREAM) or ""

    def _leave_out(self, call: Call, request: NetworkServiceRequest, kind: str) -> bool:
        """Have the next attempt do without ``kind``; return False where it was agreed on long ago."""
        reached = call.state.get(REACHED)
        if reached is not None:  # the next hop has the connection: it is to know it again
            mtu = request.connection.context.MTU
            request.connection.path.CopyFrom(reached.path)
            request.connection.context.CopyFrom(reached.context)
            request.connection.context.MTU = mtu  # what was reached is what fitted the mechanism that is out
        agreed = call.state.get(DOWNSTREAM)
        if agreed is not None and agreed.type == kind:
            call.state.pop(DOWNSTREAM)
            call.state.set(REFUSED, (call.state.get(REFUSED) or frozenset()) | {kind})
            return True
        if request.connection.HasField("mechanism"):
            return False
        left = [copy_of(one) for one in request.mechanism_preferences if one.type != kind]
        del request.mechanism_preferences[:]
        request.mechanism_preferences.extend(left)
        return True


def _all_of_it(request: NetworkServiceRequest, refused: dict[str, str], last: MeshError) -> MeshError:
    if not refused:
        return last
    told = "; ".join(f"{kind}: {why}" for kind, why in refused.items())
    return Refused(
        f"no mechanism works for connection {request.connection.id}: {told}; then: {last.what}",
        remedy=last.remedy,
    )
