"""Quota: no identity takes all the room of a manager."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Collection

from nsmesh.core.call import Call, Peer, State
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Exhausted
from nsmesh.core.metrics import Counter
from nsmesh.model.messages import Connection, NetworkServiceRequest

REFUSALS = Counter("nsm_quota_refusals", "Requests of identities that had as many connections as they may.")


class Quota(Element):
    """Refuses a new connection to an identity that has ``most`` already; 0 refuses none.

    An identity is a SPIFFE ID, or a user of this host where there is none. Roles of this process have no
    quota. Refreshes of what there is are never refused.

    After:  Begin, Authorize
    Reads:  who calls
    Leaves: whose each connection is
    Close:  forgets it, passes on
    """

    after = ("Begin", "Authorize")

    def __init__(self, most: int) -> None:
        self._most = most
        self._whose: dict[str, str] = {}
        self._held: Tally[str] = Tally()

    def keeps(self) -> Collection[str]:
        """Return of which connections it is known whose they are."""
        return self._whose.keys()

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Count a connection no longer."""
        whose = self._whose.pop(connection_id, None)
        if whose is not None:
            self._held[whose] -= 1
            if not self._held[whose]:
                del self._held[whose]

    async def resume(self, call: Call, connection: Connection) -> None:
        """Count it, also beyond the quota."""
        if self._most and not call.peer.in_process and connection.id not in self._whose:
            whose = _identity(call.peer)
            self._held[whose] += 1
            self._whose[connection.id] = whose

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Count a connection that is new, and pass on."""
        name = request.connection.id
        if self._most and not call.peer.in_process and name not in self._whose:
            self._take(name, _identity(call.peer))
        return await next.request(call, request)

    def _take(self, connection_id: str, whose: str) -> None:
        if self._held[whose] >= self._most:
            REFUSALS.add()
            raise Exhausted(
                f"{whose} has {self._held[whose]} connections, as many as one identity may have here",
                remedy="close some, or raise NSM_MAX_CONNECTIONS_PER_IDENTITY of this manager",
            )
        self._held[whose] += 1
        self._whose[connection_id] = whose

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on; what is closed counts no longer, whatever the next hops say."""
        try:
            await next.close(call, connection)
        finally:
            await self.forget(connection.id, call.state)


def _identity(peer: Peer) -> str:
    return peer.spiffe_id or (f"user {peer.uid}" if peer.uid is not None else "somebody without a name")
