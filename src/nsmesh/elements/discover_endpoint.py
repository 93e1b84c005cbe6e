"""DiscoverEndpoint: the forwarder's question who may provide the service."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from nsmesh.core.call import Call
from nsmesh.core.deciding import CANDIDATES, ENDPOINT, Candidate, Candidates, listed
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import NotFound, Unavailable
from nsmesh.core.lookup import Lookup, has_expired
from nsmesh.core.peering import TARGET, TARGET_NAME
from nsmesh.core.trying import never
from nsmesh.model.fileurl import GONE
from nsmesh.model.match import match_endpoints
from nsmesh.model.messages import Connection, NetworkServiceRequest

log = structlog.get_logger()

BRIEFLY = 0.2
"""Seconds that an endpoint has to answer whose process has just died."""


class DiscoverEndpoint(Element):
    """Finds the named endpoint, or the endpoints that matching leaves for the service.

    A named endpoint is taken as it is: no matching. When the registry is away, a living connection goes where
    it went before. Where ``silent`` says of the URL of a named endpoint that nobody answers, who asks waits
    :data:`BRIEFLY` and no longer: it may have been started again.

    After:  Begin
    Reads:  endpoint name, network service, payload, labels
    Writes: TARGET and its name where the endpoint is named, else CANDIDATES; the payload, from the service,
            where empty
    Close:  passes on; the client half knows where the connection lives
    """

    after = ("Begin",)

    def __init__(self, registry: Lookup, silent: Callable[[str], bool] = never) -> None:
        self._registry = registry
        self._silent = silent

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Find, write down, pass on."""
        connection = request.connection
        if connection.network_service_endpoint_name:
            endpoint = await self._named(call, connection)
            share = call.within(BRIEFLY) if self._silent(endpoint.url) else call
            there = share.put(TARGET, endpoint.url).put(TARGET_NAME, endpoint.name)
            answer = await next.request(there, request)
            call.state.set(ENDPOINT, endpoint)
            return answer
        return await next.request(call.put(CANDIDATES, await self._matching(call, connection)), request)

    async def _named(self, call: Call, connection: Connection) -> Candidate:
        name = connection.network_service_endpoint_name
        known = call.state.get(ENDPOINT)
        try:
            await self._fill_payload(call, connection)
            for entry in await self._registry.named(call, name, self.scope.clock.now()):
                if entry.name == name:
                    return Candidate(name, entry.url)
        except Unavailable as error:
            if known is None or known.name != name or known.url == GONE:
                raise
            log.warning("registry is away: stay with the endpoint", name=name, why=str(error))
            return known
        raise NotFound(
            f"network service endpoint {name} not found",
            remedy=f"leave the endpoint's name empty to get any endpoint of {connection.network_service}",
        )

    async def _fill_payload(self, call: Call, connection: Connection) -> None:
        if connection.payload:
            return
        try:
            service = await self._registry.service(call, connection.network_service, "")
        except NotFound:
            return  # the endpoint is named: the service itself is not needed
        connection.payload = service.payload

    async def _matching(self, call: Call, connection: Connection) -> Candidates:
        service = await self._registry.service(call, connection.network_service, connection.payload)
        now = self.scope.clock.now()
        registered = await self._registry.endpoints(call, service.name, now)
        alive = [entry for entry in registered if not has_expired(entry, now)]
        selection = match_endpoints(connection.labels, service, alive)
        if not selection.candidates:
            gone = [
                (entry.name, "its registration has expired") for entry in registered if entry not in alive
            ]
            raise _none(service.name, [*selection.dropped, *gone])
        connection.payload = service.payload or connection.payload
        return Candidates(
            service.name, tuple(Candidate(entry.name, entry.url) for entry in selection.candidates)
        )


def _none(service: str, dropped: list[tuple[str, str]]) -> NotFound:
    if not dropped:
        return NotFound(
            f"network service endpoint candidates not found: network service {service} has no endpoint",
            remedy="start an endpoint that registers for it",
        )
    return NotFound(
        f"network service endpoint candidates not found among {len(dropped)} of network service {service}: "
        f"{listed(dropped)}",
        remedy="compare the labels of client and endpoints with the matches of the service",
    )
