"""Outcomes: whoever tells people of wires hears what became of each Request of a client of this node."""

from __future__ import annotations

import asyncio

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.outcome import Listener, Outcome
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkServiceRequest

CLIENT = 1
"""Index of our segment in the path of a connection whose client asked us directly."""


class Outcomes(Element):
    """Tells of Requests that succeeded or failed, in front of everything that has a say in them.

    A Request that is given up by its caller is told of by nobody.

    After:  UpdatePath
    Reads:  path
    Close:  passes on
    """

    after = ("UpdatePath",)

    def __init__(self) -> None:
        self.listeners: list[Listener] = []

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, tell."""
        if not self.listeners or request.connection.path.index != CLIENT:
            return await next.request(call, request)
        asked = _asked(request)
        begun = asyncio.get_running_loop().time()
        try:
            answer = await next.request(call, request)
        except MeshError as error:
            self._tell(Outcome(asked, call.peer, asyncio.get_running_loop().time() - begun, error))
            raise
        self._tell(Outcome(copy_of(answer), call.peer, asyncio.get_running_loop().time() - begun))
        return answer

    def _tell(self, outcome: Outcome) -> None:
        for listener in self.listeners:
            listener(outcome)


def _asked(request: NetworkServiceRequest) -> Connection:
    """Return what is asked for, before those behind us change it."""
    asked = copy_of(request.connection)
    if not asked.HasField("mechanism") and request.mechanism_preferences:
        asked.mechanism.CopyFrom(request.mechanism_preferences[0])
    return asked
