"""What was there before a recording began: registrations, entries of our registry, connections."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from interop_next_hop import FORWARDER
from interop_trace import FINDS, RecordedCall

from nsmesh import rpc
from nsmesh.core.call import Peer
from nsmesh.core.tokens import token_headers
from nsmesh.model import methods
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    ConnectionEventType,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
    NetworkServiceRequest,
    State,
)
from nsmesh.model.registry_path import RegistryPath
from nsmesh.security.token import TokenMinter

if TYPE_CHECKING:
    from interop_stage import Stage

PATIENCE = 5.0
"""Virtual seconds in which our client takes up what its manager holds."""


async def prologue(stage: Stage) -> None:
    """Start ours, unless the recording starts it, and bring it to where the recording begins."""
    if any(one.role == stage.role and one.what == "start" for one in stage.trace.actions):
        return
    await _provide(stage)
    if stage.role == "registry":
        stage.ours.entries = list(_entries(stage))
    if stage.role.startswith("nsc"):
        _hold(stage)
    await stage.ours.start()
    if stage.role.startswith("nsmgr"):
        await _register_locals(stage)
    if stage.role.startswith(("nsmgr", "forwarder", "nse")):
        for client, request in _connections(stage):
            await _establish(stage, client, request)
    if stage.role.startswith("nsc") and stage.player.world.place("nsmgr").connections:
        async with asyncio.timeout(PATIENCE):
            await stage.player.world.granted.wait()


def _hold(stage: Stage) -> None:
    """Let the manager hold what our client asks for again in the recording."""
    place = stage.player.world.place("nsmgr")
    for call in stage.trace.calls:
        if call.client == stage.role and call.method == methods.REQUEST and not place.connections:
            told = copy_of(call.request.connection)  # type: ignore[union-attr]
            if len(told.path.path_segments) > 1:
                told.path.index = 1
                told.id = told.path.path_segments[1].id
                place.connections[told.id] = told
            return


async def _provide(stage: Stage) -> None:
    """Let the registry know what our requests need, where the recording shows no questions to it."""
    world, urls = stage.player.world, stage.listens[stage.role]
    if stage.role.startswith("nsmgr") and (stage.role, "registry") not in stage.transport:
        await world.put("registry", _endpoint(FORWARDER, FORWARDER, urls["tcp"], {"p2p": "true"}))
        for connection in _granted(stage):
            service = NetworkService(name=connection.network_service, payload=connection.payload)
            await world.put("registry", service)
    for _, request in _connections(stage) if stage.role.startswith("nsmgr") else ():
        for segment in request.connection.path.path_segments:
            if segment.name in stage.standins and segment.name.startswith(FORWARDER):
                entry = _endpoint(segment.name, FORWARDER, urls["tcp"], {"p2p": "true"})
                await world.put("registry", entry)
    if stage.role.startswith(FORWARDER) and not any(
        (stage.role, role) in stage.transport for role in stage.standins if role.startswith("nsmgr")
    ):
        for call in stage.trace.calls:
            if call.client == stage.role and call.method == methods.REQUEST:
                asked: NetworkServiceRequest = call.request  # type: ignore[assignment]
                name, service = (
                    asked.connection.network_service_endpoint_name,
                    asked.connection.network_service,
                )
                await world.put("nsmgr", NetworkService(name=service, payload=asked.connection.payload))
                await world.put("nsmgr", _endpoint(name, service, stage.standins[call.server].url, {}))


def _granted(stage: Stage) -> Iterator[Connection]:
    """Yield the connections that our manager granted, or asked a forwarder for."""
    for call in stage.trace.calls:
        if call.method == methods.REQUEST and call.server == stage.role and call.status == 0:
            yield call.answers[0].message  # type: ignore[misc]
        elif call.method == methods.REQUEST and call.client == stage.role:
            yield call.request.connection  # type: ignore[union-attr]


def _endpoint(name: str, service: str, url: str, labels: dict[str, str]) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(
        name=name,
        network_service_names=[service],
        network_service_labels={service: NetworkServiceLabels(labels=labels)},
        url=url,
    )


def _entries(stage: Stage) -> Iterator[Any]:
    """Yield what others found in our registry before anybody had registered it in the recording."""
    told: list[tuple[float, str, Any]] = []
    for call in stage.trace.calls:
        if call.server != stage.role:
            continue
        kind = call.method.split("/")[1]
        if call.verb == "Register":
            told.append((call.t, f"{kind} {getattr(call.request, 'name', '')}", None))
        if call.method in FINDS:
            service = call.method == methods.SERVICE_FIND
            for said in call.answers:
                found: Any = said.message
                entry = found.network_service if service else found.network_service_endpoint
                told.append((said.t, f"{kind} {entry.name}", entry))
    known = set()
    for _, key, entry in sorted(told, key=lambda one: one[0]):
        if entry is not None and key not in known:
            yield stage.bindings.live(entry)
        known.add(key)


async def _register_locals(stage: Stage) -> None:
    """Register at our manager what it had registered: what the registry knows under its URL."""
    registry = stage.player.world.place("registry").registry
    own = stage.listens[stage.role]["tcp"]
    for entry in list(await registry.endpoints.list(NetworkServiceEndpoint())):
        path = stage.folder / f"{entry.name}.sock"
        if entry.url != own or not path.exists():
            continue
        async with _Dialled(stage, entry.name) as client:
            mine = copy_of(entry)
            mine.ClearField("expiration_time")
            mine.ClearField("initial_registration_time")
            del mine.path_ids[:]
            mine.url = client.send_fd(str(path))
            metadata = (*_tokens(stage, entry.name), ("path", RegistryPath().text()))
            await client.unary(methods.ENDPOINT_REGISTER, mine.SerializeToString(), metadata=metadata)


def _connections(stage: Stage) -> Iterator[tuple[str, NetworkServiceRequest]]:
    """Yield the connections that ours held when the recording began, as each client asks for its own."""
    known = set()
    for call in stage.trace.calls:
        if call.server != stage.role:
            continue
        if call.method == methods.MONITOR and call.t < 0:
            for connection in _standing(call):
                if connection.path.index and connection.path.path_segments[0].id not in known:
                    known.add(connection.path.path_segments[0].id)
                    client = connection.path.path_segments[connection.path.index - 1].name
                    if client in stage.standins:
                        yield client, NetworkServiceRequest(connection=_as_asked(connection))
        elif call.method == methods.REQUEST:
            request: NetworkServiceRequest = call.request  # type: ignore[assignment]
            if request is None:
                continue
            path = request.connection.path
            first = path.path_segments[0].id if path.path_segments else ""
            behind = path.path_segments[path.index + 1 :][:1]
            if first not in known and behind and behind[0].name == stage.role and not stage.trace.bent:
                yield call.client, request
            known.add(first)


def _standing(call: RecordedCall) -> list[Connection]:
    """Return the connections that a monitor had told of, and not taken back, when the recording began."""
    standing: dict[str, Connection] = {}
    for said in call.answers:
        event: ConnectionEvent = said.message  # type: ignore[assignment]
        for key, connection in event.connections.items() if said.t < 0 else ():
            if event.type == ConnectionEventType.DELETE:
                standing.pop(key, None)
            else:
                standing[key] = connection
    return list(standing.values())


def _as_asked(connection: Connection) -> Connection:
    asked = copy_of(connection)
    asked.path.index -= 1
    asked.id = asked.path.path_segments[asked.path.index].id
    return asked


async def _establish(stage: Stage, client: str, recorded: NetworkServiceRequest) -> None:
    request: NetworkServiceRequest = stage.bindings.live(recorded)
    request.connection.state = State.UP
    if not request.mechanism_preferences:
        request.mechanism_preferences.append(request.connection.mechanism)
    async with _Dialled(stage, client) as dialled:
        for path in stage.bindings.paths_of(recorded):
            dialled.send_fd(str(path))
        deadline = asyncio.get_running_loop().time() + 15
        body = request.SerializeToString()
        await dialled.unary(methods.REQUEST, body, metadata=_tokens(stage, client), deadline=deadline)


class _Dialled:
    """A connection to ours, for the length of one call."""

    def __init__(self, stage: Stage, client: str) -> None:
        self._stage = stage
        self._client = client

    async def __aenter__(self) -> rpc.Client:
        source = self._stage.source(self._client)
        urls = self._stage.listens[self._stage.role]
        url = urls.get("unix") or urls["tcp"]
        self._connection = await rpc.connect(url, identity=source, timeout=5)
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        await self._connection.aclose(0)


def _tokens(stage: Stage, client: str) -> tuple[tuple[str, str], ...]:
    minter = TokenMinter(stage.source(client), clock=stage.clock)
    return token_headers(*minter.mint(Peer(spiffe_id=stage.svids[stage.role].spiffe_id)))
