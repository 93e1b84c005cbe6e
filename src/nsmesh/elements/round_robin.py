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


class RoundRobin(Element):
    """Sends each Request of a service to the next endpoint in turn; if that refuses, once to each other one.

    An endpoint that stands twice among the candidates has two turns in a round. One that could not be reached
    lately, or of whose URL ``silent`` says that nobody answers, is asked last, for a while.

    After:  DiscoverEndpoint
    Reads:  CANDIDATES
    Writes: TARGET, endpoint name
    Leaves: one counter per network service; ENDPOINT, per connection
    Close:  passes on
    """

    after = ("DiscoverEndpoint",)

    def __init__(self, silent: Callable[[str], bool] = never) -> None:
        self._silent = silent
        self._turns: dict[str, int] = {}
        self._unreached = Unreached()

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
        order = dict.fromkeys(candidates.members[start:] + candidates.members[:start])
        chosen, answer = await try_in_order(
            call,
            request,
            tuple(order),
            next,
            complaint=f"all endpoints of network service {candidates.service} have failed",
            unreached=self._unreached,
            silent=self._silent,
            prepare=_address,
        )
        call.state.set(ENDPOINT, chosen)
        answer.network_service_endpoint_name = answer.network_service_endpoint_name or chosen.name
        return answer


def _address(request: NetworkServiceRequest, candidate: Candidate) -> None:
    request.connection.network_service_endpoint_name = candidate.name
