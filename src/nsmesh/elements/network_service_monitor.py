"""NetworkServiceMonitor: closes a connection whose endpoint the service no longer allows it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

import structlog

from nsmesh.core.call import Call, Key, Peer
from nsmesh.core.call import State as Kept
from nsmesh.core.codecs import json_codec
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.life import LIFE, Life
from nsmesh.core.lookup import find_endpoints
from nsmesh.core.peering import closing
from nsmesh.model.match import match_endpoints
from nsmesh.model.messages import (
    Connection,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceQuery,
    NetworkServiceRequest,
    NetworkServiceResponse,
    State,
)

log = structlog.get_logger()

PAUSE = 1.0
"""Seconds before a broken watch is opened again, at first; doubled up to :data:`LONGEST_PAUSE`."""
LONGEST_PAUSE = 30.0
CHOSEN: Key[bool] = Key("endpoint-chosen", json_codec(bool))
"""In ``call.state``: whether matching chose the endpoint, and nobody named it."""
LOOKUP = 15.0
"""Seconds that the lookup of an endpoint may take."""


@dataclass(slots=True)
class _Member:
    """A connection under watch. ``chosen``: matching chose its endpoint, nobody named it."""

    life: Life
    labels: dict[str, str]
    endpoint: str
    chosen: bool


@dataclass(slots=True)
class _Watch:
    """One network service, and the connections to it."""

    name: str
    members: dict[str, _Member] = field(default_factory=dict)
    current: NetworkService | None = None
    task: asyncio.Task[None] | None = None


class NetworkServiceMonitor(Element):
    """Watches each network service that connections go to, once, and acts when its matches change.

    A connection is closed when its endpoint, known by its labels in the registry, is no candidate of the
    changed service any more. A connection whose client named an endpoint that never was a candidate stays,
    and so does one whose service or endpoint disappears: healing and refresh decide about those.

    After:  Begin, DiscoverForwarder
    Reads:  labels, network service, endpoint name of the answer
    Leaves: one watch per network service, while there are connections to it
    Close:  leaves the watch, passes on
    """

    after = ("Begin", "DiscoverForwarder")

    def __init__(self, registry: Handler) -> None:
        self._registry = registry
        self._watches: dict[str, _Watch] = {}

    def keeps(self) -> Collection[str]:
        """Return the members of all watches."""
        return [key for watch in self._watches.values() for key in watch.members]

    async def forget(self, connection_id: str, state: Kept) -> None:  # noqa: ARG002 - nothing is kept there
        """Leave the watch that it is a member of."""
        self._leave_all(connection_id)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then join the watch."""
        connection_id = request.connection.id
        name = request.connection.network_service
        labels = dict(request.connection.labels)
        chosen = not request.connection.network_service_endpoint_name
        if request.connection.state == State.RESELECT_REQUESTED:
            self._leave_all(connection_id)  # of the endpoint that it had nobody need judge any more
        watch = self._watches.get(name)
        seen = watch.current if watch else None
        answer = await next.request(call, request)
        life = call.state.get(LIFE)
        if life is not None:
            member = _Member(life, labels, answer.network_service_endpoint_name, chosen)
            self._leave_all(connection_id, but=name)
            self._join(name, connection_id, member, seen)
            call.state.set(CHOSEN, member.chosen)
        return answer

    async def resume(self, call: Call, connection: Connection) -> None:
        """Join the watch; a service that changed meanwhile is looked at as soon as it is seen."""
        life = call.state.get(LIFE)
        if life is not None:
            endpoint, chosen = connection.network_service_endpoint_name, call.state.get(CHOSEN) is True
            member = _Member(life, dict(connection.labels), endpoint, chosen)
            self._join(connection.network_service, connection.id, member, None)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Leave the watch, pass on."""
        self._leave_all(connection.id)
        await next.close(call, connection)

    def _join(self, name: str, connection_id: str, member: _Member, seen: NetworkService | None) -> None:
        watch = self._watches.get(name)
        if watch is None:
            watch = self._watches[name] = _Watch(name)
        old = watch.members.get(connection_id)
        if old is not None and old.endpoint == member.endpoint:
            member.chosen = old.chosen
        watch.members[connection_id] = member
        if watch.task is None:
            watch.task = self.scope.spawn(self._follow(watch), name=f"watch of network service {name}")
        elif watch.current is not None and watch.current is not seen:
            # it changed while the connection was made: nobody else will look at this one
            self.scope.spawn(self._judge(watch, [connection_id], seen), name="network service: late check")

    def _leave_all(self, connection_id: str, *, but: str = "") -> None:
        """Leave also the watch of a service that was asked for before."""
        for name in [watch.name for watch in self._watches.values() if connection_id in watch.members]:
            if name != but:
                self._leave(name, connection_id)

    def _leave(self, name: str, connection_id: str) -> None:
        watch = self._watches.get(name)
        if watch is None:
            return
        watch.members.pop(connection_id, None)
        if not watch.members:
            del self._watches[name]
            if watch.task is not None:
                watch.task.cancel()

    async def _follow(self, watch: _Watch) -> None:
        pause = PAUSE
        query = NetworkServiceQuery(network_service=NetworkService(name=watch.name), watch=True)
        while True:
            try:
                async with closing(self._registry.find(Call(peer=Peer(in_process=True)), query)) as found:
                    async for item in found:
                        pause = PAUSE
                        if isinstance(item, NetworkServiceResponse):
                            await self._changed(watch, item)
                log.info("watch of a network service ended", service=watch.name)
            except MeshError as error:
                log.warning("watch of a network service broke", service=watch.name, why=str(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _changed(self, watch: _Watch, item: NetworkServiceResponse) -> None:
        if item.network_service.name != watch.name:
            return
        if item.deleted:
            log.warning("network service is gone; its connections stay", service=watch.name)
            return
        before, watch.current = watch.current, item.network_service
        if before is None or before.matches != watch.current.matches:
            await self._judge(watch, list(watch.members), before)

    async def _judge(self, watch: _Watch, ids: list[str], before: NetworkService | None) -> None:
        """Close those of ``ids`` whose endpoint is no candidate now, though it was one ``before``."""
        endpoints: dict[str, NetworkServiceEndpoint | None] = {}
        for connection_id in ids:
            member = watch.members.get(connection_id)
            if member is None:
                continue
            if member.endpoint not in endpoints:
                endpoints[member.endpoint] = await self._endpoint(member.endpoint)
            endpoint = endpoints[member.endpoint]
            if endpoint is None or watch.current is None or _allowed(member, watch.current, endpoint):
                continue
            if member.chosen or (before is not None and _allowed(member, before, endpoint)):
                self.scope.spawn(self._end(watch, connection_id, member), name="network service: close")

    async def _endpoint(self, name: str) -> NetworkServiceEndpoint | None:
        try:
            call = Call().within(LOOKUP)
            found = await find_endpoints(self._registry, call, NetworkServiceEndpoint(name=name))
        except MeshError as error:
            log.warning("cannot look at an endpoint", name=name, why=str(error))
            return None
        return next((entry for entry in found if entry.name == name), None)

    async def _end(self, watch: _Watch, connection_id: str, member: _Member) -> None:
        now = watch.members.get(connection_id)
        if now is None or now.endpoint != member.endpoint:
            return  # it has ended or reselected meanwhile
        log.warning(
            "endpoint is no candidate of the changed network service: close",
            connection=connection_id,
            service=watch.name,
            endpoint=member.endpoint,
        )
        try:
            await member.life.close()
        except MeshError as error:
            log.warning("close failed", connection=connection_id, why=str(error))


def _allowed(member: _Member, service: NetworkService, endpoint: NetworkServiceEndpoint) -> bool:
    return bool(match_endpoints(member.labels, service, [endpoint]).candidates)
