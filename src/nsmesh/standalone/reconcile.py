"""From applied documents to a running mesh: what is new is made, what changed is made again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from nsmesh.core.call import Call, Peer
from nsmesh.core.errors import MeshError, NotFound, Unavailable
from nsmesh.model.manifest import Document, Endpoint, Link, Workload
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.standalone.clients import Client, Wire
from nsmesh.standalone.documents import Local, key
from nsmesh.standalone.events import Event
from nsmesh.standalone.mesh import Mesh, command, search_path
from nsmesh.standalone.processes import Command
from nsmesh.standalone.supervisor import Unit
from nsmesh.standalone.telling import describe_match, last_line, summary

READY = 10.0
"""Seconds within which a new endpoint must have registered."""

Tell = Callable[[Event], None]


class Reconciler:
    """Applies and deletes documents, one call at a time."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._turn = asyncio.Lock()

    async def apply(self, documents: list[Document], tell: Tell, *, wait: bool) -> None:
        """Make the mesh as ``documents`` say; ``tell`` hears each step. Raises the first error."""
        async with self._turn:
            await self._apply(documents, tell, wait=wait)

    async def restore(self) -> None:
        """Make what an earlier run of this mesh had; errors become events."""
        for document in list(self.mesh.documents.known.values()):
            try:
                await self.apply([document], lambda _event: None, wait=False)
            except MeshError as error:
                self.mesh.events.add(
                    "mesh", f"{document.name}: {error.what}", failed=True, remedy=error.remedy
                )

    async def _apply(self, documents: list[Document], tell: Tell, *, wait: bool) -> None:
        await self._apply_entries(documents, tell)
        fresh = [item for item in documents if isinstance(item, Local) and self._is_new(item)]
        for item in documents:
            if isinstance(item, Local) and item not in fresh:
                tell(self._event(key(item)[0], f"{key(item)[0]} {item.name} unchanged"))
        for item in fresh:
            if key(item) in self.mesh.documents.known:
                await self._remove(*key(item), tell)
            self.mesh.documents.put(item)
        try:
            await self._make(fresh, tell, wait=wait)
        except MeshError:
            for item in fresh:
                if not self._lives(item):
                    self.mesh.documents.drop(*key(item))
                    self.mesh.spaces.drop(item.name)
            raise

    async def _apply_entries(self, documents: list[Document], tell: Tell) -> None:
        for document in documents:
            if isinstance(document, NetworkService):
                await self._service(document, tell)
            elif isinstance(document, NetworkServiceEndpoint):
                await self._register(document)
                tell(self._event("endpoint", f"endpoint {document.name} registered at {document.url}"))

    def _is_new(self, document: Local) -> bool:
        return self.mesh.documents.known.get(key(document)) != document or not self._lives(document)

    def _lives(self, document: Local) -> bool:
        if isinstance(document, Link):
            return document.name in self.mesh.spaces.links
        if isinstance(document, Workload) and not document.command:
            return document.name in self.mesh.clients.known
        return document.name in self.mesh.supervisor.units

    async def _make(self, fresh: list[Local], tell: Tell, *, wait: bool) -> None:
        for item in fresh:
            if isinstance(item, Endpoint | Workload):
                pid = item.pid if isinstance(item, Workload) else 0
                self.mesh.spaces.make(item.name, item.netns, pid)
        for item in fresh:
            if isinstance(item, Link):
                await self.mesh.spaces.link(item)
                ends = " - ".join(f"{end.of}/{end.interface}" for end in item.ends)
                tell(self._event("link", f"link {item.name} made: {ends}"))
        workloads = [item for item in fresh if isinstance(item, Workload)]
        for item in workloads:
            if not item.services:  # it needs nothing of the mesh, but others may need it
                await self._start_workload(item, tell, wait=wait)
        endpoints = [item for item in fresh if isinstance(item, Endpoint)]
        started = self.mesh.scope.clock.monotonic()
        for endpoint in endpoints:
            await self._start_endpoint(endpoint)
        for endpoint in endpoints:
            await self._registered(endpoint)
            unit = self.mesh.supervisor.units[endpoint.name]
            took = self.mesh.scope.clock.monotonic() - started
            labels = ",".join(f"{name}={value}" for name, value in endpoint.labels.items())
            tell(
                self._event(
                    "endpoint",
                    f"endpoint {endpoint.name} ({endpoint.type}) ready in {took:.2f} s: "
                    f"pid {unit.process.pid if unit.process else 0}, labels {labels or '-'}, "
                    f"registered for {', '.join(endpoint.services)}",
                )
            )
        await asyncio.gather(
            *(self._start_workload(item, tell, wait=wait) for item in workloads if item.services)
        )

    async def _service(self, service: NetworkService, tell: Tell) -> None:
        old = self.mesh.model.services.get(service.name)
        await self._register(service)
        verb = "updated" if old is not None else "registered"
        rules = "; ".join(describe_match(match) for match in service.matches) or "any endpoint"
        tell(self._event("service", f"service {service.name} {verb}: {rules}"))

    async def _register(self, entry: NetworkService | NetworkServiceEndpoint) -> None:
        manager = await self.mesh.manager()
        await manager.register(Call(peer=Peer(in_process=True)).within(READY), entry)

    async def _start_endpoint(self, endpoint: Endpoint) -> None:
        mesh = self.mesh
        for name in endpoint.services:
            if name not in mesh.model.services:
                await self._register(NetworkService(name=name, payload=endpoint.payload or "ETHERNET"))
        environment = {
            "NSM_NAME": endpoint.name,
            "SPIFFE_ENDPOINT_SOCKET": mesh.paths.workload_api,
            "NSM_CONNECT_TO": mesh.manager_url,
            "NSM_LISTEN_ON": f"unix://{mesh.paths.socket(endpoint.name)}",
            "NSM_SERVICE_NAMES": ",".join(endpoint.services),
            "NSM_LABELS": ",".join(f"{name}:{value}" for name, value in endpoint.labels.items()),
            "NSM_PAYLOAD": endpoint.payload or "ETHERNET",
            "NSM_NETNS": mesh.spaces.of(endpoint.name).path,
            "NSM_REGISTER_SERVICE": "false",
            "NSM_ENDPOINT_OPTIONS": json.dumps(dict(endpoint.options)),
            **endpoint.env,
        }
        run = Command(
            command("nse", endpoint.type),
            mesh.paths.logs / f"{endpoint.name}.log",
            netns=mesh.spaces.of(endpoint.name).path,
            environment=environment,
            directory=str(mesh.paths.files),
        )
        mesh.supervisor.start(Unit(endpoint.name, "endpoint", run, restart=endpoint.restart))

    async def _registered(self, endpoint: Endpoint) -> None:
        mesh = self.mesh
        end = mesh.scope.clock.monotonic() + READY
        while endpoint.name not in mesh.model.endpoints:
            unit = mesh.supervisor.units.get(endpoint.name)
            ended = unit is None or (unit.process is None and unit.failures > 1)
            if ended or mesh.scope.clock.monotonic() > end:
                last = last_line(mesh.paths.logs / f"{endpoint.name}.log")
                await mesh.supervisor.stop(endpoint.name)
                raise Unavailable(
                    f"endpoint {endpoint.name} did not become ready: {last}",
                    remedy=f"see: nsm logs {endpoint.name}",
                )
            await asyncio.sleep(0.01)

    async def _start_workload(self, workload: Workload, tell: Tell, *, wait: bool) -> None:
        mesh = self.mesh
        space = mesh.spaces.of(workload.name)
        urls = list(workload.services)
        client = await mesh.clients.add(workload.name, space.path)
        if urls:
            mesh.clients.keep(client, urls)
        if wait:
            await self._wired(client, tell)
        if workload.command:
            if urls and not wait:
                mesh.scope.spawn(self._start_when_wired(client, workload), name=f"start {workload.name}")
            else:
                self._start_command(workload)
                tell(self._event("workload", f"workload {workload.name} started: {workload.command[0]}"))

    async def _start_when_wired(self, client: Client, workload: Workload) -> None:
        await self.mesh.clients.settled(client)
        try:
            self._start_command(workload)
        except MeshError as error:
            self.mesh.events.add(
                "workload", f"{workload.name}: {error.what}", failed=True, remedy=error.remedy
            )

    def _start_command(self, workload: Workload) -> None:
        run = Command(
            [*workload.command, *workload.args],
            self.mesh.paths.logs / f"{workload.name}.log",
            netns=self.mesh.spaces.of(workload.name).path,
            environment={"PATH": search_path(), **workload.env},
            directory=workload.workdir or str(self.mesh.paths.files),
        )
        self.mesh.supervisor.start(Unit(workload.name, "workload", run, restart=workload.restart))

    async def _wired(self, client: Client, tell: Tell) -> None:
        settled = asyncio.ensure_future(self.mesh.clients.settled(client))
        try:
            await asyncio.wait([settled], timeout=READY)
        finally:
            settled.cancel()
        for wire in client.wires.values():
            if wire.state != "up":
                why = wire.error or "no answer yet"
                remedy = wire.error.remedy if wire.error else ""
                raise Unavailable(
                    f"workload {client.name} has no wire to {wire.url.service} yet: "
                    f"{wire.error.what if wire.error else why}",
                    remedy=remedy or "it is tried on in the background; see: nsm get clients -o wide",
                )
            for event in self.told(client, wire):
                tell(event)

    def told(self, client: Client, wire: Wire) -> list[Event]:
        """Return what there is to tell of a wire that just came up: its path, hop by hop."""
        connection = client.connection(wire)
        if connection is None:
            return []
        hops = " -> ".join(segment.name for segment in connection.path.path_segments)
        events = [
            self._event("request", f"request {wire.id} for {wire.url.service}: {hops}", connection=wire.id)
        ]
        for segment in connection.path.path_segments:
            made = ", ".join(f"{name} {value}" for name, value in sorted(segment.metrics.items()))
            if made:
                events.append(self._event("wire", f"  hop {segment.name}: {made}", connection=wire.id))
        events.append(self._event("wire", summary(connection, wire.took), connection=wire.id))
        return events

    async def delete(self, kind: str, name: str, tell: Tell) -> None:
        """Delete one object by kind and name; raises NotFound."""
        async with self._turn:
            await self._remove(kind, name, tell)

    async def _remove(self, kind: str, name: str, tell: Tell) -> None:
        mesh = self.mesh
        call = Call(peer=Peer(in_process=True)).within(READY)
        if kind == "service":
            if name not in mesh.model.services:
                raise NotFound(f"there is no service {name}", remedy="list them with: nsm get services")
            await (await mesh.manager()).unregister(call, NetworkService(name=name))
        elif (kind, name) in mesh.documents.known:
            await self._take(kind, name)
            mesh.documents.drop(kind, name)
        elif kind == "endpoint" and name in mesh.model.endpoints:
            await (await mesh.manager()).unregister(call, NetworkServiceEndpoint(name=name))
        else:
            raise NotFound(f"there is no {kind} {name}", remedy=f"list them with: nsm get {kind}s")
        tell(self._event(kind, f"{kind} {name} deleted"))

    async def _take(self, kind: str, name: str) -> None:
        mesh = self.mesh
        if kind == "link":
            await mesh.spaces.unlink(name)
            return
        await mesh.supervisor.stop(name)
        await mesh.clients.remove(name)
        for link in list(mesh.spaces.links.values()):
            if any(end.of == name for end in link.ends):
                await mesh.spaces.unlink(link.name)
        mesh.spaces.drop(name)
        if kind == "endpoint" and name in mesh.model.endpoints:
            call = Call(peer=Peer(in_process=True)).within(READY)
            await (await mesh.manager()).unregister(call, NetworkServiceEndpoint(name=name))

    def _event(self, kind: str, text: str, *, connection: str = "") -> Event:
        return self.mesh.events.add(kind, text, connection=connection)
