"""The whole mesh on this host: registry, manager, forwarder and clients in one process, or apart."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from nsmesh.chains import client as client_chain
from nsmesh.chains.liveness import Liveness
from nsmesh.chains.registrar import registrar
from nsmesh.chains.registry import running_registry
from nsmesh.chains.roles import running_forwarder, running_nsmgr
from nsmesh.chains.runtime import Runtime, runtime
from nsmesh.chains.settings import ForwarderSettings, NsmgrSettings, RegistrySettings
from nsmesh.core.element import Chain, Handler
from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.core.scope import Scope
from nsmesh.datapath import netns
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.elements.heal import Heal
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.standalone.children import Children
from nsmesh.standalone.clients import Clients
from nsmesh.standalone.documents import Documents
from nsmesh.standalone.events import Events
from nsmesh.standalone.followers import Followers
from nsmesh.standalone.identity import running_identities
from nsmesh.standalone.news import News
from nsmesh.standalone.paths import MeshPaths
from nsmesh.standalone.processes import Command
from nsmesh.standalone.read_model import ReadModel
from nsmesh.standalone.spaces import Spaces
from nsmesh.standalone.supervisor import Death, Supervisor, Unit
from nsmesh.standalone.telling import last_words

log = structlog.get_logger()

LIFETIME = 600.0
"""Seconds that a wire lives without a refresh."""
ROLES = ("registry", "nsmgr", "forwarder")
READY = 10.0
"""Seconds within which a role that runs apart must answer."""
NEVER = 1e9
"""Seconds between two looks at a wire that nobody reported lost: it is looked at when its fate is decided."""
PATIENCE = 6.0
"""Seconds that one step of going down may take; what resists longer is killed or left to its own end."""


@dataclass(slots=True)
class Mesh:
    """Everything of one mesh, running."""

    paths: MeshPaths
    separate: bool
    scope: Scope
    runtime: Runtime
    children: Children
    events: Events
    supervisor: Supervisor
    spaces: Spaces
    documents: Documents
    clients: Clients
    followers: Followers
    news: News
    manager: Handler
    """The manager, here or in its own process: its monitor, and its view of the registry."""
    model: ReadModel
    manager_url: str
    registry_url: str
    forwarder_url: str
    started: float
    state: str = "restoring"
    """``restoring`` what an earlier run had, ``up``, or ``going down``."""


def command(role: str, *arguments: str) -> list[str]:
    """Return the command line of a role of its own."""
    return [sys.executable, "-m", "nsmesh.cli.main", "run", role, *arguments]


def search_path() -> str:
    """Return PATH with the folder of the command ``nsm`` in front."""
    return f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"


@asynccontextmanager
async def running_mesh(paths: MeshPaths, *, separate: bool) -> AsyncIterator[Mesh]:
    """Run a mesh while the block runs; leaving takes down everything that it made."""
    async with AsyncExitStack() as stack:
        scope = await stack.enter_async_context(Scope(f"mesh {paths.mesh}"))
        identities = await stack.enter_async_context(running_identities(paths, scope.clock))
        held = await stack.enter_async_context(
            runtime(lifetime=LIFETIME, dial_timeout=2.0, share=not separate, workload_api=paths.workload_api)
        )
        children = Children(paths.children)
        news = News()
        events = Events(scope.clock, news)
        supervisor = Supervisor(scope, children, died=lambda unit, death: _died(events, unit, death))
        manager_url = f"unix://{paths.manager}"
        registry_url = f"unix://{paths.socket('registry')}"
        forwarder_url = f"unix://{paths.socket('forwarder')}"

        def make_client(name: str, place: str) -> Chain:
            return client_chain.client(
                name,
                heal=Heal(Liveness(lambda: place), interval=NEVER),
                manager=manager_url,
                peers=held.peers,
                tokens=held.tokens,
                checks=held.checks(),
                clock=held.clock,
            )

        clients = Clients(scope, events, make_client)
        manager = registrar(
            f"mesh {paths.mesh}",
            manager=manager_url,
            peers=held.peers,
            tokens=held.tokens,
            checks=held.registry_checks(),
            clock=held.clock,
        )
        await stack.enter_async_context(manager.running())
        mesh = Mesh(
            paths=paths,
            separate=separate,
            scope=scope,
            runtime=held,
            children=children,
            events=events,
            supervisor=supervisor,
            spaces=Spaces(paths, children, identities),
            documents=Documents(paths.documents),
            clients=clients,
            followers=Followers(scope, events, clients.remove),
            news=news,
            manager=manager,
            model=ReadModel(scope, manager, news),
            manager_url=manager_url,
            registry_url=registry_url,
            forwarder_url=forwarder_url,
            started=scope.clock.now(),
        )
        if separate:
            stack.push_async_callback(_take_down, mesh)  # also of a start that fails half-way
            await _start_apart(mesh)
        else:
            await _start_here(mesh, stack)
            stack.push_async_callback(_take_down, mesh)
        await mesh.model.start()
        yield mesh


def _died(events: Events, unit: Unit, death: Death) -> None:
    again = "; it is started again" if death.restarted else ""
    events.add(unit.kind, f"{unit.kind} {unit.name} {death.why}{again}", failed=death.why != "finished")


async def _start_here(mesh: Mesh, stack: AsyncExitStack) -> None:
    paths, held = mesh.paths, mesh.runtime
    registry = RegistrySettings(listen_on=(mesh.registry_url,), database=str(paths.registry))
    front = held.registry_front(registry.registry_server_policies)
    await stack.enter_async_context(running_registry(registry, held, sqlite=True, front=front))
    manager = NsmgrSettings(
        name=paths.manager_name,
        listen_on=(mesh.manager_url,),
        registry_url=mesh.registry_url,
        excluded_prefixes_file=str(paths.state / "excluded_prefixes.yaml"),
    )
    await stack.enter_async_context(running_nsmgr(manager, held))
    datapath = LinuxDatapath(owner=paths.forwarder_owner, namespaces=netns.named)
    forwarder = ForwarderSettings(
        name=paths.forwarder_name, connect_to=mesh.manager_url, listen_on=mesh.forwarder_url
    )
    await stack.enter_async_context(running_forwarder(forwarder, held, datapath, [Kernel()]))
    mesh.events.add("mesh", f"mesh {paths.mesh} is up: registry, manager and forwarder in one process")


def role_environment(mesh: Mesh) -> dict[str, dict[str, str]]:
    """Return the environment of each role that runs apart."""
    paths = mesh.paths
    return {
        "registry": {
            "NSM_NAME": f"registry-{paths.mesh}",
            "NSM_LISTEN_ON": mesh.registry_url,
            "NSM_DATABASE": str(paths.registry),
        },
        "nsmgr": {
            "NSM_NAME": paths.manager_name,
            "NSM_LISTEN_ON": mesh.manager_url,
            "NSM_REGISTRY_URL": mesh.registry_url,
            "NSM_EXCLUDED_PREFIXES_FILE": str(paths.state / "excluded_prefixes.yaml"),
        },
        "forwarder": {
            "NSM_NAME": paths.forwarder_name,
            "NSM_CONNECT_TO": mesh.manager_url,
            "NSM_LISTEN_ON": mesh.forwarder_url,
        },
    }


async def _start_apart(mesh: Mesh) -> None:
    programs = {"registry": "registry-sqlite", "nsmgr": "nsmgr", "forwarder": "forwarder"}
    for role, environment in role_environment(mesh).items():
        environment["SPIFFE_ENDPOINT_SOCKET"] = mesh.paths.workload_api
        run = Command(command(programs[role]), mesh.paths.logs / f"{role}.log", environment=environment)
        mesh.supervisor.start(Unit(role, "role", run, restart="always"))
    urls = {"registry": mesh.registry_url, "nsmgr": mesh.manager_url, "forwarder": mesh.forwarder_url}
    for role, url in urls.items():
        await _answers(mesh, role, url)
    mesh.events.add(
        "mesh", f"mesh {mesh.paths.mesh} is up: registry, manager and forwarder as processes of their own"
    )


async def _answers(mesh: Mesh, role: str, url: str) -> None:
    """Wait until a role answers; raises Unavailable with its last words when it does not, or cannot live."""
    unit = mesh.supervisor.units[role]
    end = mesh.scope.clock.monotonic() + READY
    while True:
        try:
            await mesh.runtime.peers.get(url)
        except MeshError as error:
            if unit.failures > 1 or mesh.scope.clock.monotonic() > end:
                words = last_words(mesh.paths.logs / f"{role}.log")
                raise Unavailable(
                    f"the {role} does not answer at {url}, and said last: {words}",
                    remedy=f"see the logs in {mesh.paths.logs}",
                ) from error
            await asyncio.sleep(0.05)
        else:
            return


async def _take_down(mesh: Mesh) -> None:
    """Wires first, by the book; then workloads, endpoints, links, namespaces; the roles come last."""
    steps: list[tuple[str, Any]] = [
        ("wires", mesh.clients.aclose),
        ("workloads and endpoints", lambda: mesh.supervisor.stop(*_units(mesh, roles=False))),
        ("links and namespaces", mesh.spaces.aclose),
        ("roles", lambda: mesh.supervisor.stop(*_units(mesh, roles=True))),
    ]
    for what, step in steps:
        try:
            async with asyncio.timeout(PATIENCE):
                await step()
        except (MeshError, TimeoutError) as error:
            log.warning("going down: something resisted", what=what, error=str(error))


def _units(mesh: Mesh, *, roles: bool) -> list[str]:
    return [name for name, unit in mesh.supervisor.units.items() if (unit.kind == "role") == roles]
