"""The whole mesh on this host as one object: what it is made of, before its roles are started."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import structlog

from nsmesh.api import join_pb2
from nsmesh.chains import client as client_chain
from nsmesh.chains.liveness import Liveness, carrier
from nsmesh.chains.registrar import registrar
from nsmesh.chains.runtime import Runtime, runtime
from nsmesh.core.element import Chain, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.scope import Scope
from nsmesh.datapath import netns
from nsmesh.elements.heal import Heal
from nsmesh.model.manifest import LivenessCheck
from nsmesh.standalone.children import Children
from nsmesh.standalone.clients import Clients
from nsmesh.standalone.connects import Connects
from nsmesh.standalone.documents import Documents
from nsmesh.standalone.events import Events
from nsmesh.standalone.followers import Followers
from nsmesh.standalone.fork_keeper import NAME, OUTPUT, ForkKeeper
from nsmesh.standalone.hosting import opened, running_hosts
from nsmesh.standalone.identity import Identities, running_identities
from nsmesh.standalone.joining.hosts import Hosts
from nsmesh.standalone.joining.member import Member
from nsmesh.standalone.joining.place import Place
from nsmesh.standalone.news import News
from nsmesh.standalone.nodes import Conditions, Node, Placement, node_of_host, nodes_of
from nsmesh.standalone.paths import MeshPaths
from nsmesh.standalone.processes import Started, alive
from nsmesh.standalone.read_model import ReadModel
from nsmesh.standalone.spaces import Spaces
from nsmesh.standalone.supervisor import Death, Supervisor, Unit
from nsmesh.standalone.switches import Switches
from nsmesh.standalone.underlay import UNDERLAY, Underlay

log = structlog.get_logger()

LIFETIME = 600.0
"""Seconds that a wire lives without a refresh."""
NEVER = 1e9
LATE = 0.1
"""Seconds that a look may end late."""
"""Seconds between two looks at a wire that nobody reported lost: it is looked at when its fate is decided."""


@dataclass(slots=True)
class Mesh:
    """Everything of one mesh, running."""

    paths: MeshPaths
    separate: bool
    """Whether registry, managers and forwarders are processes of their own."""
    nodes: dict[str, Node]
    """The nodes on this host."""
    hosts: Hosts | None
    """This host among others, where there may be others."""
    conditions: Conditions
    underlay: Underlay | None
    """What joins the nodes, where there are several."""
    placement: Placement
    scope: Scope
    runtime: Runtime
    children: Children
    identities: Identities
    events: Events
    supervisor: Supervisor
    forks: ForkKeeper
    spaces: Spaces
    switches: Switches
    documents: Documents
    connects: Connects
    clients: Clients
    followers: Followers
    news: News
    managers: dict[str, Handler]
    """The manager of each node, here or in its own process: its monitor, and its view of the registry."""
    model: ReadModel
    registry_url: str
    started: float
    """By the loop's clock."""
    hands_over: bool = False
    """Whether the end of this daemon is not the end of the mesh: another one goes on with it."""
    state: str = "restoring"
    """``restoring`` what an earlier run had, ``up``, or ``going down``."""
    left: dict[str, int] = field(default_factory=dict)
    """Until when entries of deleted endpoints stay, by name: only those could have taken them away."""

    @property
    def several(self) -> bool:
        """Whether there are several nodes."""
        return self.underlay is not None

    @property
    def elsewhere(self) -> dict[str, join_pb2.Node]:
        """The nodes that are other hosts, by name."""
        found = self.hosts.nodes() if self.hosts is not None else ()
        return {node.name: node for node in found if node.name not in self.nodes}

    @property
    def first(self) -> str:
        """The host that has the network services, where it is another one than this."""
        return self.hosts.first if self.hosts is not None and self.hosts.joined else ""

    @property
    def taken(self) -> set[str]:
        """Names that parts of the mesh have, as processes, namespaces, logs or in paths."""
        names = {"registry", "nsmgr", "forwarder", "daemon", NAME} | set(filter(None, self.nodes))
        for node in self.nodes.values():
            names |= {node.manager, node.manager_unit}
            names |= {name for one in node.forwarders for name in (one.name, one.unit, *one.spaces)}
        return names | {UNDERLAY} if self.several else names


async def composed(
    paths: MeshPaths, stack: AsyncExitStack, *, separate: bool, conditions: Conditions, listen: Place | None
) -> Mesh:
    """Return a mesh whose roles are not started yet; ``stack`` holds what it needs.

    ``listen``: where other hosts may join; None: where they could when the mesh was up last.
    """
    scope = await stack.enter_async_context(Scope(f"mesh {paths.mesh}"))
    news = News()
    events = Events(scope.clock, news)
    authority = await opened(paths, stack, scope.clock)
    children = Children(paths.children)
    identities = await stack.enter_async_context(
        running_identities(
            paths, scope.clock, authority, lambda found: _go_on(found, paths, children, conditions)
        )
    )
    held = await stack.enter_async_context(
        runtime(
            lifetime=LIFETIME,
            dial_timeout=2.0,
            share=not separate,
            workload_api=paths.workload_api,
            journal=str(paths.journal("daemon")),
        )
    )
    hosts = await running_hosts(paths, stack, authority, held, events, listen)
    kinds = conditions.forwarders
    nodes = node_of_host(paths, hosts.place, kinds) if hosts else nodes_of(paths, conditions.nodes, kinds)
    placement = Placement(nodes)

    documents = Documents(paths.documents)

    def make_client(name: str, place: str) -> Chain:
        check = documents.liveness(name) or LivenessCheck(NEVER)
        heal = Heal(
            Liveness(lambda: place, check.timeout),
            carries=carrier(lambda: place),
            tokens=held.tokens,
            interval=check.interval,
            limit=check.timeout + LATE,
            count=check.count,
        )
        return client_chain.client(
            name,
            heal=heal,
            manager=placement.put("client", name).manager_url,
            peers=held.peers,
            tokens=held.tokens,
            checks=held.checks(),
            journal=held.journal,
            clock=held.clock,
        )

    clients = Clients(scope, events, make_client)

    connects = Connects(paths.connects)

    async def gone(name: str, why: MeshError) -> None:
        connects.drop(name)
        placement.drop("client", name)
        await clients.remove(name, why)

    managers: dict[str, Handler] = {
        name: await stack.enter_async_context(_registrar(held, node).running())
        for name, node in nodes.items()
    }
    supervisor = Supervisor(
        scope,
        children,
        died=lambda unit, death: _died(events, unit, death),
        born=lambda unit, process: _born(identities, unit, process),
    )
    supervisor.title = f"nsm --mesh {paths.mesh} --run-dir {paths.run}"
    return Mesh(
        paths=paths,
        separate=separate,
        nodes=nodes,
        hosts=hosts,
        conditions=conditions,
        underlay=Underlay(paths, children, conditions) if conditions.nodes > 1 else None,
        placement=placement,
        scope=scope,
        runtime=held,
        children=children,
        identities=identities,
        events=events,
        supervisor=supervisor,
        forks=ForkKeeper(supervisor, scope, paths.logs / OUTPUT, paths.fork_server),
        spaces=Spaces(paths, children, identities),
        switches=Switches(paths, children, conditions.switch),
        documents=documents,
        connects=connects,
        clients=clients,
        followers=Followers(scope, events, gone),
        news=news,
        managers=managers,
        model=ReadModel(scope, list(managers.values()), news),
        registry_url=authority.record.registry_url
        if isinstance(authority, Member)
        else f"unix://{paths.socket('registry')}",
        started=scope.clock.monotonic(),
    )


def _go_on(identities: Identities, paths: MeshPaths, children: Children, conditions: Conditions) -> None:
    """Give those who live on from a killed daemon the IDs that they had."""
    nodes = nodes_of(paths, conditions.nodes, conditions.forwarders).values()
    units = {"registry", *(node.manager_unit for node in nodes)}
    units |= {one.unit for node in nodes for one in node.forwarders}
    unowned = {paths.netns(UNDERLAY)}
    unowned |= {paths.netns(name) for node in nodes for one in node.forwarders for name in one.spaces}
    roles = {name: one for name, one in children.processes.items() if name in units and alive(one)}
    own = f"{paths.mesh}."
    spaces = {
        name.removeprefix(own): f"{netns.RUN_NETNS}/{name}"
        for name in sorted(children.namespaces)
        if name not in unowned and children.same_namespace(name)
    }
    identities.go_on_with(roles, spaces)


def _registrar(held: Runtime, node: Node) -> Chain:
    return registrar(
        f"of {node.manager}",
        manager=node.manager_url,
        peers=held.peers,
        tokens=held.tokens,
        checks=held.registry_checks(),
        clock=held.clock,
    )


def _born(identities: Identities, unit: Unit, process: Started) -> Callable[[], None]:
    """Give roles IDs of their own. Others have those of their namespaces."""
    return identities.add_process(unit.name, process) if unit.kind == "role" else lambda: None


def _died(events: Events, unit: Unit, death: Death) -> None:
    again = "; it is started again" if death.restarted else ""
    events.add(unit.kind, f"{unit.kind} {unit.name} {death.why}{again}", failed=death.why != "finished")
