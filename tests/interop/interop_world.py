"""What played roles know besides the recorded calls: registry entries to be found, connections to be watched.

Ours asks for these in its own way (one watch for all, one stream per neighbour), so it is answered from the
state that the recording shows, not call by call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from interop_bindings import Bindings
from interop_trace import FINDS, RecordedCall, Said, Trace

from nsmesh import rpc
from nsmesh.core.call import Call, Peer
from nsmesh.core.errors import Unavailable
from nsmesh.core.peering import closing
from nsmesh.model import methods
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceQuery,
    NetworkServiceRequest,
)
from nsmesh.model.registry_path import PATH_HEADER, read_registry_path, set_path_id
from nsmesh.model.selector import selected
from nsmesh.model.times import timestamp
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE
from nsmesh.security.svid import SvidSource
from nsmesh.security.token import TokenMinter, read_claims

LIFE = 60.0
"""Seconds that a registration lives which the recording does not show."""


@dataclass
class Place:
    """What one played role knows."""

    registry: Registry = field(default_factory=lambda: Registry(MemoryStore(SERVICE), MemoryStore(ENDPOINT)))
    connections: dict[str, Connection] = field(default_factory=dict)
    listeners: list[asyncio.Queue[ConnectionEvent]] = field(default_factory=list)


class World:
    """The places of all played roles that ours asks."""

    def __init__(self, trace: Trace, bindings: Bindings) -> None:
        self._trace = trace
        self._b = bindings
        self._places: dict[str, Place] = {}
        self.granted = asyncio.Event()
        self._seen: set[tuple[str, bytes]] = set()

    def place(self, role: str) -> Place:
        """Return what a role knows."""
        return self._places.setdefault(role, Place())

    # -- what the recording tells ----------------------------------------------------------------------------

    def _told(self) -> Iterator[tuple[RecordedCall, Said]]:
        for call in self._trace.calls:
            if call.client == self._b.role and call.method in (*FINDS, methods.MONITOR):
                for said in call.answers:
                    yield call, said

    def events(self) -> Iterator[tuple[str, Said]]:
        """Yield what becomes known in the course of the recording, by who tells it."""
        for call, said in self._told():
            if said.t >= 0:
                yield call.server, said

    async def begin(self) -> None:
        """Let everybody know what was there before the recording began."""
        calls = [call for call in self._trace.calls if call.client == self._b.role]
        asked = min((call.t for call in calls if call.verb == "Request"), default=0.0)
        known = {
            (call.server, getattr(call.request, "name", "")): call.t
            for call in reversed(calls)
            if call.verb == "Register"
        }
        heard = set()
        for call, said in sorted(self._told(), key=lambda pair: pair[1].t):
            if isinstance(said.message, ConnectionEvent):
                if said.t < 0 or (call.server not in heard and said.t < max(asked, 0.0)):
                    self._remember(call.server, said.message)
                heard.add(call.server)
                continue
            key = (call.server, _entry(said.message).name)
            if known.get(key, said.t) < said.t:
                continue
            known[key] = -1e9
            if not said.message.deleted:  # type: ignore[union-attr]
                await self.put(call.server, _entry(said.message))

    async def put(self, role: str, entry: Any) -> None:
        """Let a role know an entry of the recording; what it knows already is no news."""
        registry = self.place(role).registry
        live = self._b.live(entry)
        store: Any = registry.services if isinstance(entry, NetworkService) else registry.endpoints
        if await store.get(entry.name) != live:
            await registry.register(Call(peer=Peer(in_process=True)), live)

    async def drop(self, role: str, entry: Any) -> None:
        """Let a role forget an entry."""
        await self.place(role).registry.unregister(Call(peer=Peer(in_process=True)), self._b.live(entry))

    async def told(self, role: str, said: Said) -> None:
        """Act on something that was told in the recording."""
        message = said.message
        if isinstance(message, ConnectionEvent):
            await self._event(role, said.raw, message)
        elif message is not None and message.deleted:  # type: ignore[attr-defined]
            await self.drop(role, _entry(message))
        elif message is not None:
            await self.put(role, _entry(message))

    async def _event(self, role: str, raw: bytes, event: ConnectionEvent) -> None:
        place = self.place(role)
        if event.type == ConnectionEventType.INITIAL_STATE_TRANSFER or (role, raw) in self._seen:
            return
        self._seen.add((role, raw))  # each of several recorded streams told it
        self._remember(role, event)
        for listener in place.listeners:
            listener.put_nowait(self._b.live(event))

    def _remember(self, role: str, event: ConnectionEvent) -> None:
        connections = self.place(role).connections
        for key, connection in event.connections.items():
            if event.type == ConnectionEventType.DELETE:
                connections.pop(key, None)
            else:
                connections[key] = copy_of(connection)

    def answered(self, role: str, method: str, answer: Connection) -> None:
        """Let a role know what it has granted, or closed."""
        segments = answer.path.path_segments
        behind = answer.path.index + 1
        if behind >= len(segments):
            return
        connections = self.place(role).connections
        if method == methods.CLOSE:
            connections.pop(segments[behind].id, None)
            return
        told = connections[segments[behind].id] = copy_of(answer)
        told.id = segments[behind].id
        told.path.index = behind

    # -- what ours asks --------------------------------------------------------------------------------------

    async def find(
        self, role: str, call: rpc.ServerCall, body: bytes, *, sends: bool
    ) -> AsyncIterator[bytes]:
        """Answer a Find."""
        service = call.path == methods.SERVICE_FIND
        query = (NetworkServiceQuery if service else NetworkServiceEndpointQuery).FromString(body)
        async with closing(self.place(role).registry.find(Call(), query)) as found:
            async for item in found:
                if sends:
                    self._send_sockets(call, item)
                yield item.SerializeToString()

    def _send_sockets(self, call: rpc.ServerCall, item: Message) -> None:
        url = getattr(_entry(item), "url", "")
        for recorded, name in self._trace.inodes.items():
            if url and url == self._b.inode(recorded):
                call.send_fd(str(self._b.file(name)))
                return

    async def monitor(self, role: str, call: rpc.ServerCall, body: bytes) -> AsyncIterator[bytes]:
        """Answer a monitor: what is there, then what is told."""
        selector = MonitorScopeSelector.FromString(body)
        place = self.place(role)
        first = ConnectionEvent()
        for key, connection in place.connections.items():
            first.connections[key].CopyFrom(connection)
        queue: asyncio.Queue[ConnectionEvent] = asyncio.Queue()
        place.listeners.append(queue)
        try:
            yield _selected(self._b.live(first), selector).SerializeToString()
            while True:
                event = _selected(await queue.get(), selector)
                if event.connections:
                    yield event.SerializeToString()
        finally:
            place.listeners.remove(queue)

    def grant(self, role: str, request: NetworkServiceRequest, call: rpc.ServerCall) -> Connection:
        """Return a connection that stood before the recording began: as it is told of, else as asked for."""
        connection = request.connection
        own = connection.path.index
        if len(connection.path.path_segments) <= own + 1:
            raise Unavailable("this Request was not recorded")
        self.granted.set()
        for told in self.place(role).connections.values():
            segments = told.path.path_segments
            if own < len(segments) and segments[own].id == connection.path.path_segments[own].id:
                answer = copy_of(told)
                del answer.path.path_segments[: own + 1]
                for path in self._b.paths_of(told):
                    call.send_fd(str(path))
                live: Connection = self._b.live(answer)
                tail = list(live.path.path_segments)
                live.id = connection.id
                live.path.CopyFrom(connection.path)
                del live.path.path_segments[own + 1 :]
                live.path.path_segments.extend(tail)
                return live
        if not connection.HasField("mechanism") and request.mechanism_preferences:
            connection.mechanism.CopyFrom(request.mechanism_preferences[0])
            spaces = [self._b.file(name) for name in self._trace.inodes.values() if name.startswith("netns:")]
            place = self._b.file(f"netns:{role}") or next(iter(spaces), None)
            if place is not None:
                connection.mechanism.parameters["inodeURL"] = call.send_fd(str(place))
        return connection

    async def unary(self, role: str, call: rpc.ServerCall, body: bytes) -> bytes:
        """Answer a call that is not in the recording: registrations are taken."""
        registry = self.place(role).registry
        if call.path in {methods.SERVICE_UNREGISTER, methods.ENDPOINT_UNREGISTER}:
            return Empty().SerializeToString()
        if call.path == methods.REQUEST:
            return self.grant(role, NetworkServiceRequest.FromString(body), call).SerializeToString()
        if call.path not in {methods.SERVICE_REGISTER, methods.ENDPOINT_REGISTER}:
            raise Unavailable(f"{call.path} was not recorded")
        service = call.path == methods.SERVICE_REGISTER
        entry = (NetworkService if service else NetworkServiceEndpoint).FromString(body)
        ours, theirs = self._b.svids[self._b.role], self._b.svids[role]
        header = dict(call.metadata)
        path = read_registry_path(header[PATH_HEADER])
        own = TokenMinter(SvidSource(theirs, ()), clock=self._b.clock).mint(Peer(spiffe_id=ours.spiffe_id))[0]
        path.enter(header["nsm-client-token"], own)
        path.index -= 1
        call.reply[PATH_HEADER] = path.text()
        for number, token in enumerate(path.tokens):
            set_path_id(entry.path_ids, number, read_claims(token).subject or "")
        if isinstance(entry, NetworkServiceEndpoint):
            entry.expiration_time.CopyFrom(timestamp(self._b.clock.now() + LIFE))
        store = registry.services if service else registry.endpoints
        if await store.get(entry.name) is None:  # what the recording shows of it is nearer to the truth
            await registry.register(Call(), copy_of(entry))
        return entry.SerializeToString()


def _entry(item: Any) -> Any:
    return getattr(item, "network_service", None) or item.network_service_endpoint


def _selected(event: ConnectionEvent, selector: MonitorScopeSelector) -> ConnectionEvent:
    shown = ConnectionEvent(type=event.type)
    for key, connection in event.connections.items():
        if selected(selector, connection):
            shown.connections[key].CopyFrom(connection)
    return shown
