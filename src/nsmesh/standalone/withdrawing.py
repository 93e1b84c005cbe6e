"""What a node that is out of the mesh had registered goes with it, and its names are free again."""

from __future__ import annotations

import structlog

from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.lookup import find_endpoints
from nsmesh.core.scope import Scope
from nsmesh.model.messages import NetworkServiceEndpoint
from nsmesh.standalone.joining.roster import Member

log = structlog.get_logger()


class Withdrawing:
    """Unregisters the endpoints and forwarders of a node, all of which are reached at its manager.

    The node cannot do it: it may be lost, and its identity counts no more.
    """

    def __init__(self, registry: Handler, scope: Scope) -> None:
        self._registry = registry
        self._scope = scope

    def __call__(self, node: Member) -> None:
        """Begin, in the background."""
        self._scope.spawn(self._withdraw(node), name=f"withdraw what {node.name} had registered")

    async def _withdraw(self, node: Member) -> None:
        call = Call(peer=Peer(in_process=True))
        for entry in await find_endpoints(self._registry, call, NetworkServiceEndpoint(url=node.manager_url)):
            if entry.url != node.manager_url:
                continue
            try:
                await self._registry.unregister(call, entry)
            except MeshError as error:  # it ends by itself, a minute after its last registration
                log.warning("what a node had registered stays for a while", name=entry.name, error=str(error))
