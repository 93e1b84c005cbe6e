"""TrimPath: where the path ends, nothing stands to the right."""

from __future__ import annotations

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.peering import NEXT_HOP
from nsmesh.model.messages import Connection, NetworkServiceRequest


class TrimPath(Element):
    """Cuts the segments right of our own out of an answer that did not come from a next hop.

    A refresh brings the whole path of the last answer, and what stood behind us may be gone.

    After:  Begin
    Reads:  NEXT_HOP
    Writes: path
    """

    after = ("Begin", "UpdatePath")

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then cut."""
        answer = await next.request(call, request)
        if call.state.get(NEXT_HOP) is None:
            del answer.path.path_segments[answer.path.index + 1 :]
        return answer
