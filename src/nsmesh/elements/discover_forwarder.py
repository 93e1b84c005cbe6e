"""DiscoverForwarder: the manager's choice of who makes the wire."""

from __future__ import annotations

import structlog

from nsmesh.core.call import Call, Key
from nsmesh.core.deciding import CANDIDATE, Candidate, is_refresh, listed
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError, NotFound, Unavailable
from nsmesh.core.lookup import Lookup, has_expired
from nsmesh.core.peering import TARGET
from nsmesh.core.trying import try_in_order
from nsmesh.core.unreached import Unreached
from nsmesh.model.fileurl import GONE
from nsmesh.model.match import match_forwarders
from nsmesh.model.messages import (
    FORWARDER_SERVICE,
    Connection,
    NetworkServiceRequest,
    State,
)

log = structlog.get_logger()

FORWARDER: Key[Candidate] = Key("forwarder", CANDIDATE)
"""In ``call.state``: the forwarder that holds this connection."""


class DiscoverForwarder(Element):
    """Finds the forwarders that may make this wire and tries them until one does.

    ``registry`` asks the manager's own registry chain, which gives local forwarders their real URLs; ``url``
    is the manager's own URL as it registers it, so that only its own forwarders are found. ``service`` is the
    name under which they register.

    A living connection stays with its forwarder as long as that is registered and can be reached; others are
    tried when nobody answers there (they take the wire over, as it is). A forwarder that could not be reached
    lately is tried last, for a while. After a restart of the manager the forwarder that the path names is
    tried first.

    After:  Begin
    Reads:  network service, payload, labels, path segment index+1
    Writes: TARGET
    Leaves: the forwarder, per connection; a reselecting Request forgets it
    Close:  goes to the remembered forwarder
    """

    after = ("Begin",)

    def __init__(self, registry: Lookup, url: str, service: str = FORWARDER_SERVICE) -> None:
        self._registry = registry
        self._url = url
        self._service = service
        self._unreached = Unreached()

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Choose, try in order, remember."""
        reselects = request.connection.state == State.RESELECT_REQUESTED
        remembered = None if reselects else call.state.get(FORWARDER)
        try:
            order = await self._order(call, request.connection, remembered)
        except Unavailable as error:
            if remembered is None or remembered.url == GONE:
                raise
            log.warning("registry is away: stay with the forwarder", name=remembered.name, why=str(error))
            order = [remembered]
        chosen, answer = await try_in_order(
            call,
            request,
            order,
            next,
            complaint="all forwarders have failed",
            unreached=self._unreached,
            bound=remembered is not None and is_refresh(call) and order[0].name == remembered.name,
        )
        call.state.set(FORWARDER, chosen)
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Close where the connection lives."""
        chosen = call.state.pop(FORWARDER)
        if chosen is not None and chosen.url == GONE:
            chosen = await self._again(call, chosen)
        await next.close(call.put(TARGET, chosen.url) if chosen else call, connection)

    async def _again(self, call: Call, chosen: Candidate) -> Candidate | None:
        """Return a forwarder as it is registered now, None where it is not."""
        try:
            registered = await self._registry.endpoints(
                call, self._service, self.scope.clock.now(), url=self._url
            )
        except MeshError as error:
            log.warning("registry is away: the forwarder is not found", name=chosen.name, why=str(error))
            return None
        return next((Candidate(one.name, one.url) for one in registered if one.name == chosen.name), None)

    async def _order(
        self, call: Call, connection: Connection, remembered: Candidate | None
    ) -> list[Candidate]:
        service = await self._registry.service(call, connection.network_service, connection.payload)
        now = self.scope.clock.now()
        registered = await self._registry.endpoints(call, self._service, now, url=self._url)
        alive = [entry for entry in registered if not has_expired(entry, now)]
        selection = match_forwarders(connection.labels, service, alive, self._service)
        if not selection.candidates:
            gone = [
                (entry.name, "its registration has expired") for entry in registered if entry not in alive
            ]
            raise self._none(service.name, [*selection.dropped, *gone])
        order = [Candidate(entry.name, entry.url) for entry in selection.candidates]
        if remembered and is_refresh(call) and not any(each.name == remembered.name for each in order):
            log.warning("forwarder is no candidate any more", connection=connection.id, name=remembered.name)
        first = remembered.name if remembered else _named_by_path(connection)
        return sorted(order, key=lambda candidate: candidate.name != first)

    def _none(self, service: str, dropped: list[tuple[str, str]]) -> NotFound:
        what = f"no candidates found for a wire to network service {service}"
        if dropped:
            return NotFound(
                f"{what} among {len(dropped)} forwarders: {listed(dropped)}",
                remedy="start a forwarder with such labels, or change the metadata of the service's match",
            )
        under = "" if self._service == FORWARDER_SERVICE else f" under the service name {self._service}"
        return NotFound(
            f"{what}: no forwarder is registered{under}",
            remedy="start a forwarder on this node, with this manager as its NSM_CONNECT_TO"
            + (f" and NSM_NSNAME={self._service}" if under else ""),
        )


def _named_by_path(connection: Connection) -> str:
    behind = connection.path.index + 1
    if connection.state == State.RESELECT_REQUESTED or behind >= len(connection.path.path_segments):
        return ""
    return connection.path.path_segments[behind].name
