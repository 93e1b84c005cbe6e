"""The one read model: MonitorConnections of the managers and a view of the registry, as plain messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import structlog

from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.peering import closing
from nsmesh.core.scope import Scope
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    ConnectionEventType,
    Found,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceQuery,
    NetworkServiceResponse,
    Query,
)
from nsmesh.standalone.news import News

log = structlog.get_logger()

AGAIN = 0.2
"""Seconds between a broken stream and the next try."""
SETTLED = 1.0
"""Seconds after which a list is compared again with what a new watch told."""
SYNC = 5.0
"""Seconds that the first list may take."""


class ReadModel:
    """Follows the managers; a stream that breaks is opened again, and what it told stays till then.

    The registry is seen by the first one. A manager's view of it leaves out what its node had before a
    restart and has not again yet.
    """

    def __init__(self, scope: Scope, managers: Sequence[Handler], news: News) -> None:
        self.scope = scope
        self._managers = managers
        self._manager = managers[0]
        self._news = news
        self.services: dict[str, NetworkService] = {}
        self.endpoints: dict[str, NetworkServiceEndpoint] = {}
        self.connections: dict[str, Connection] = {}
        self.since: dict[str, float] = {}
        self.listed = asyncio.Event()
        """Set when services and endpoints have been listed once."""
        self._lists: set[str] = set()

    async def start(self) -> None:
        """Begin to follow, and wait for the first lists; ends with the scope."""
        for manager in self._managers:
            self._spawn("connections", partial(self._connections, manager, {}))
        self._spawn("services", lambda: self._entries(NetworkServiceQuery(), self.services))
        self._spawn("endpoints", lambda: self._entries(NetworkServiceEndpointQuery(), self.endpoints))
        try:
            async with asyncio.timeout(SYNC):
                await self.listed.wait()
        except TimeoutError:
            log.warning("the registry gives no list yet")

    def _spawn(self, what: str, once: Callable[[], Awaitable[None]]) -> None:
        self.scope.spawn(self._follow(what, once), name=f"read model: {what}")

    async def _follow(self, what: str, once: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await once()
            except MeshError as error:
                log.debug("read model: stream broke", what=what, error=str(error))
            await asyncio.sleep(AGAIN)

    async def _connections(self, manager: Handler, own: dict[str, None]) -> None:
        """Follow one manager; ``own`` are the keys of what it has told and not taken back."""
        call = Call(peer=Peer(in_process=True))
        async with closing(manager.monitor(call, MonitorScopeSelector())) as events:
            async for event in events:
                if event.type == ConnectionEventType.INITIAL_STATE_TRANSFER:
                    for gone in set(own) - set(event.connections):
                        self._forget(gone)
                        del own[gone]
                for key, connection in event.connections.items():
                    if event.type == ConnectionEventType.DELETE:
                        self._forget(key)
                        own.pop(key, None)
                    else:
                        own[key] = None
                        self.connections[key] = copy_of(connection)
                        self.since.setdefault(key, self.scope.clock.now())
                self._news.tell()

    def _forget(self, key: str) -> None:
        self.connections.pop(key, None)
        self.since.pop(key, None)

    async def _entries(self, query: Query, known: dict[str, Any]) -> None:
        await self._compare(query, known)
        self._lists.add(type(query).__name__)
        if len(self._lists) > 1:
            self.listed.set()
        # what is deleted between the list and the watch is told by neither
        late = self.scope.spawn(self._compare_later(query, known), name="read model: compare")
        watch = copy_of(query)
        watch.watch = True
        try:
            async with closing(self._find(watch)) as found:
                async for item in found:
                    entry = _entry(item)
                    if item.deleted:
                        known.pop(entry.name, None)
                    else:
                        known[entry.name] = entry
                    self._news.tell()
        finally:
            late.cancel()

    def _find(self, query: Query) -> AsyncIterator[Found]:
        return self._manager.find(Call(peer=Peer(in_process=True)), query)

    async def _compare(self, query: Query, known: dict[str, Any]) -> None:
        before = dict(known)
        async with closing(self._find(query)) as found:
            now = {_entry(item).name: _entry(item) async for item in found}
        for name, entry in before.items():
            if name not in now and known.get(name) is entry:
                del known[name]
        for name, entry in now.items():
            known.setdefault(name, entry)
        self._news.tell()

    async def _compare_later(self, query: Query, known: dict[str, Any]) -> None:
        await asyncio.sleep(SETTLED)
        try:
            await self._compare(query, known)
        except MeshError as error:
            log.debug("read model: no list", error=str(error))


def _entry(item: Found) -> Any:
    """Return the service or endpoint of an answer."""
    return item.network_service if isinstance(item, NetworkServiceResponse) else item.network_service_endpoint
