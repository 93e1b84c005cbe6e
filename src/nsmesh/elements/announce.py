"""Announce: a wire that leads elsewhere tells those behind its ends where their addresses are by now."""

from __future__ import annotations

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.datapath.announcing import announce_often
from nsmesh.datapath.base import Datapath
from nsmesh.model.messages import Connection, NetworkServiceRequest, State


class Announce(Element):
    """Has the driver announce the ends of a wire that was chosen anew (gratuitous ARP, advertisements).

    A first wire needs none: nobody has known another.

    After:  Begin
    Reads:  state of the Request
    Leaves: a task for a second
    Close:  passes on
    """

    after = ("Begin",)

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then announce."""
        anew = request.connection.state == State.RESELECT_REQUESTED
        connection_id = request.connection.id
        answer = await next.request(call, request)
        if anew and self.scope.running:
            self.scope.spawn(announce_often(self._datapath, connection_id), name=f"announce {connection_id}")
        return answer
