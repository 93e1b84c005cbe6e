"""Making and unmaking what documents describe: namespaces, links, processes, wires."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

from nsmesh.core.errors import MeshError, NotFound, Unauthorized, Unavailable
from nsmesh.journal.file import forget_journal
from nsmesh.model.manifest import Endpoint, Link, Workload
from nsmesh.model.manifest_records import AT_REGISTRY
from nsmesh.model.messages import NetworkService
from nsmesh.standalone.client import Client
from nsmesh.standalone.documents import Local
from nsmesh.standalone.entries import Entries
from nsmesh.standalone.making_run import Failure, NotWired, Run, Tell
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.processes import Command
from nsmesh.standalone.roles import command, search_path
from nsmesh.standalone.supervisor import Unit
from nsmesh.standalone.telling import last_words, told

READY = 10.0
"""Seconds within which a new endpoint must have registered, and a workload must have its wires."""


class Maker:
    """Makes documents in the order in which they need each other; each fails by itself."""

    def __init__(self, mesh: Mesh, entries: Entries) -> None:
        self.mesh = mesh
        self.entries = entries

    def lives(self, item: Local) -> bool:
        """Say whether a document is made."""
        if isinstance(item, Link):
            return item.name in self.mesh.spaces.links
        if isinstance(item, Workload):
            return item.name in self.mesh.clients.known
        unit = self.mesh.supervisor.units.get(item.name)
        return unit is not None and (unit.process is not None or unit.timer is not None)

    async def make(self, items: Iterable[Local], tell: Tell, *, wait: bool) -> list[Failure]:
        """Make documents; return what failed. What was begun of a failed one is taken away again."""
        run = Run(self.mesh, self.unmake, list(items), tell, wait=wait)
        await run.spaces()
        await run.each(Link, self._link)
        await run.each(Workload, self._workload, among=lambda item: not item.services)
        implied = await self._implied_services(run)
        await run.together(Endpoint, self._endpoint)
        await self._drop_unused(implied)
        await run.together(Workload, self._workload, among=lambda item: bool(item.services))
        return run.failures

    async def _link(self, link: Link, run: Run) -> None:
        await self.mesh.spaces.link(link)
        ends = " - ".join(f"{end.of}/{end.interface}" for end in link.ends)
        run.say("link", f"link {link.name} made: {ends}")

    async def _implied_services(self, run: Run) -> list[str]:
        """Register the services that endpoints offer and nobody has described; return their names."""
        made: list[str] = []
        for item in list(run.items):
            if isinstance(item, Endpoint):
                await run.guard(item, self._imply(item, made))
        return made

    async def _imply(self, endpoint: Endpoint, made: list[str]) -> None:
        for name in endpoint.services:
            if name not in self.mesh.model.services:
                if first := self.mesh.first:
                    raise NotFound(
                        f"endpoint {endpoint.name}: there is no network service {name} in the mesh",
                        remedy=f"apply it on the first host, {first}, and then this once more",
                    )
                made.append(name)
                await self.entries.register(NetworkService(name=name, payload=endpoint.payload or "ETHERNET"))

    async def _drop_unused(self, services: list[str]) -> None:
        """Unregister those of ``services`` that no endpoint offers after all."""
        for name in services:
            offered = any(name in entry.network_service_names for entry in self.mesh.model.endpoints.values())
            if not offered:
                await self.entries.drop_service(name)

    async def _endpoint(self, endpoint: Endpoint, run: Run) -> None:
        mesh, started = self.mesh, self.mesh.scope.clock.monotonic()
        unit = Unit(endpoint.name, "endpoint", self._endpoint_command(endpoint), restart=endpoint.restart)
        there = mesh.supervisor.adoptable(unit)
        if there is None:
            await self._unregister(endpoint.name)
        await self._registered(unit)
        if there is not None:
            run.say("endpoint", f"endpoint {endpoint.name} ({endpoint.type}) goes on: pid {there.pid}")
            return
        took = mesh.scope.clock.monotonic() - started
        labels = ",".join(f"{name}={value}" for name, value in endpoint.labels.items())
        run.say(
            "endpoint",
            f"endpoint {endpoint.name} ({endpoint.type}) ready in {took:.2f} s: "
            f"pid {unit.process.pid if unit.process else 0}, labels {labels or '-'}, "
            f"registered for {', '.join(endpoint.services)}",
        )

    def _endpoint_command(self, endpoint: Endpoint) -> Command:
        mesh = self.mesh
        path = mesh.spaces.of(endpoint.name).path
        node = mesh.placement.put("endpoint", endpoint.name, endpoint.node)
        # other hosts cannot reach a socket of this one, so there it goes by the manager as all others do
        direct = endpoint.type in AT_REGISTRY and mesh.hosts is None
        environment = {
            "NSM_NAME": endpoint.name,
            "SPIFFE_ENDPOINT_SOCKET": mesh.paths.workload_api,
            "NSM_CONNECT_TO": mesh.registry_url if direct else node.manager_url,
            "NSM_LISTEN_ON": f"unix://{mesh.paths.socket(endpoint.name)}",
            "NSM_SERVICE_NAMES": ",".join(endpoint.services),
            "NSM_LABELS": ",".join(f"{name}:{value}" for name, value in endpoint.labels.items()),
            "NSM_PAYLOAD": endpoint.payload or "ETHERNET",
            "NSM_NETNS": path,
            "NSM_REGISTER_SERVICE": "false",
            "NSM_UNREGISTER_ITSELF": "true",
            "NSM_JOURNAL": str(mesh.paths.journal(endpoint.name)),
            "NSM_ENDPOINT_OPTIONS": json.dumps(dict(endpoint.options)),
            **endpoint.env,
        }
        return Command(
            command("nse", endpoint.type),
            mesh.paths.logs / f"{endpoint.name}.log",
            netns=path,
            environment=environment,
            directory=str(mesh.paths.files),
        )

    async def _registered(self, unit: Unit) -> None:
        """Start an endpoint and wait until it has registered; raises Unavailable with its last words."""
        mesh, name = self.mesh, unit.name
        log = mesh.paths.logs / f"{name}.log"
        begin = log.stat().st_size if log.exists() else 0
        mesh.supervisor.start(unit)

        def settled() -> bool:
            given_up = unit.process is None and (unit.timer is None or unit.failures > 1)
            return name in mesh.model.endpoints or given_up

        await mesh.news.until(settled, READY)
        if name not in mesh.model.endpoints or unit.process is None:
            ended = f", {unit.last}" if unit.process is None and unit.last else ""
            raise Unavailable(
                f"endpoint {name} did not become ready{ended}: {last_words(log, begin)}",
                remedy=f"see: nsm logs {name}",
            )

    async def _workload(self, workload: Workload, run: Run) -> None:
        mesh = self.mesh
        mesh.placement.put("client", workload.name, workload.node)
        client = await mesh.clients.add(workload.name, mesh.spaces.of(workload.name).path)
        if workload.netns or workload.pid:
            mesh.followers.follow(workload.name, client.netns, workload.pid)
        mesh.clients.keep(client, list(workload.services))
        if not workload.services:
            if workload.command:
                self._start_command(workload)
                run.say("workload", f"workload {workload.name} started: {workload.command[0]}")
            return
        starting = mesh.scope.spawn(self._when_wired(client, workload), name=f"start {workload.name}")
        if run.wait:
            await asyncio.wait((starting,), timeout=READY)
            self._tell_wires(client, run)
            if workload.command and workload.name in mesh.supervisor.units:
                run.say("workload", f"workload {workload.name} started: {workload.command[0]}")

    async def _when_wired(self, client: Client, workload: Workload) -> None:
        await self.mesh.clients.settled(client)
        if self.mesh.clients.known.get(client.name) is not client or not workload.command:
            return
        try:
            self._start_command(workload)
        except MeshError as error:
            text = f"{workload.name}: {error.what}"
            self.mesh.events.add("workload", text, failed=True, remedy=error.remedy)

    def _start_command(self, workload: Workload) -> None:
        mesh = self.mesh
        run = Command(
            [*workload.command, *workload.args],
            mesh.paths.logs / f"{workload.name}.log",
            netns=mesh.spaces.of(workload.name).path,
            environment={"PATH": search_path(), **workload.env},
            directory=workload.workdir or str(mesh.paths.files),
        )
        mesh.supervisor.start(Unit(workload.name, "workload", run, restart=workload.restart))

    def _tell_wires(self, client: Client, run: Run) -> None:
        """Tell each wire that is there; raises Unavailable for the first that is not."""
        missing = None
        for wire in client.wires.values():
            if wire.state != "up":
                missing = missing or wire
                continue
            for kind, text in told(client, wire):
                run.say(kind, text, connection=wire.id)
        if missing is not None:
            error = missing.error
            raise NotWired(
                f"workload {client.name} has no wire to {missing.url.service} yet: "
                f"{error.what if error else 'no answer'}",
                remedy=(f"{error.remedy}; " if error and error.remedy else "")
                + "it is tried on in the background: nsm get clients -o wide",
            )

    async def unmake(self, kind: str, name: str) -> None:
        """Take away whatever is there of a document; what is not there is no harm."""
        mesh = self.mesh
        if kind == "link":
            await mesh.spaces.unlink(name)
            return
        await mesh.supervisor.stop(name)
        mesh.followers.forget(name)
        mesh.connects.drop(name)
        await mesh.clients.remove(name)
        for link in list(mesh.spaces.links.values()):
            if any(end.of == name for end in link.ends):
                await mesh.spaces.unlink(link.name)
        await mesh.spaces.drop(name)
        if kind == "endpoint":
            await self._unregister(name)
            forget_journal(mesh.paths.journal(name))
        mesh.placement.drop("client" if kind == "workload" else kind, name)

    async def _unregister(self, name: str) -> None:
        """Unregister an endpoint whose process has ended; one that died by force has not done it itself.

        Only who registered may. Its next process, of the same identity, takes the entry over; where none
        comes nobody refreshes it, and it ends by itself, a minute later at most.
        """
        try:
            await self.entries.drop_endpoint(name)
        except Unauthorized:
            if entry := self.mesh.model.endpoints.get(name):
                self.mesh.left[name] = entry.expiration_time.seconds
            self.mesh.events.add(
                "endpoint", f"endpoint {name} stays registered until it expires or is replaced"
            )
