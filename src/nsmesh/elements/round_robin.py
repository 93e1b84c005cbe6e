"""RoundRobin: takes turns among the endpoints that may provide a service."""

from __future__ import annotations

from collections.abc import Callable

from nsmesh.core.call import Call
from nsmesh.core.deciding import CANDIDATES, ENDPOINT, Candidate
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import NotFound
from nsmesh.core.trying import never, try_in_order
from nsmesh.core.unreached import Unreached
from nsmesh.model.messages import Connection, NetworkServiceRequest

LEFT, REMEMBERED = 1.0, 4096
"""Seconds for which it is known whom a connection has left, and of how many at the most."""


class RoundRobin(Element):
    """Sends each Request of a service to the next endpoint in turn; if that refuses, once to each other one.

    An endpoint that stands twice among the candidates has two turns in a round. One that could not be reached
    lately, or of whose URL ``silent`` says that nobody answers, is asked last, for a while. So is the one
    that a connection has just left: who chooses anew had a reason.

    After:  DiscoverEndpoint
    Reads:  CANDIDATES
    Writes: TARGET, endpoint name
    Leaves: one counter per network service; ENDPOINT, per connection; for a moment who was left
    Close:  notes whom it leaves, passes on
    """

    after = ("DiscoverEndpoint",)

    def __init__(self, silent: Callable[[str], bool] = never) -> None:
        self._silent = silent
        self._turns: dict[str, int] = {}
        self._unreached = Unreached()
        self._left: dict[str, tuple[str, float]] = {}

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Choose whose turn it is, unless the endpoint is chosen already."""
        candidates = call.get(CANDIDATES)
        if candidates is None or request.connection.network_service_endpoint_name:
            return await next.request(call, request)  # candidates beside a name are another forwarder's here
        if not candidates.members:
            raise NotFound("network service endpoint candidates not found")
        turn = self._turns.get(candidates.service, 0)
        self._turns[candidates.service] = turn + 1
        start = turn % len(candidates.members)
        left = self._just_left(request.connection)
        turns = dict.fromkeys(candidates.members[start:] + candidates.members[:start])
        order = sorted(turns, key=lambda candidate: candidate.name == left)
        chosen, answer = await try_in_order(
            call,
            request,
            order,
            next,
            complaint=f"all endpoints of network service {candidates.service} have failed",
            unreached=self._unreached,
            silent=self._silent,
            prepare=_address,
        )
        call.state.set(ENDPOINT, chosen)
        answer.network_service_endpoint_name = answer.network_service_endpoint_name or chosen.name
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Remember whom it leaves, pass on."""
        endpoint = call.state.get(ENDPOINT)
        if endpoint is not None:
            self._leave(connection.id, endpoint.name)
        await next.close(call, connection)

    def _leave(self, connection_id: str, endpoint: str) -> None:
        now = self.scope.clock.monotonic()
        self._left.pop(connection_id, None)
        self._left[connection_id] = endpoint, now
        while len(self._left) > REMEMBERED or now - next(iter(self._left.values()))[1] > LEFT:
            del self._left[next(iter(self._left))]

    def _just_left(self, connection: Connection) -> str:
        name, when = self._left.pop(connection.id, ("", 0.0))
        return name if self.scope.clock.monotonic() - when <= LEFT else ""


def _address(request: NetworkServiceRequest, candidate: Candidate) -> None:
    request.connection.network_service_endpoint_name = candidate.name
