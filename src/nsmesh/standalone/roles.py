"""Starting the roles of a mesh: all in the daemon's process, or each as a process on its node."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

from nsmesh.chains.forwarder_ovs import running_ovs_forwarder
from nsmesh.chains.registry import running_registry
from nsmesh.chains.roles import running_forwarder, running_nsmgr
from nsmesh.chains.settings import ForwarderSettings, NsmgrSettings, RegistrySettings
from nsmesh.chains.settings_ovs import OvsForwarderSettings
from nsmesh.chains.tunnels import mechanisms_of
from nsmesh.chains.uplinks import driver_of
from nsmesh.core.element import Chain
from nsmesh.core.errors import Invalid, MeshError, Unavailable
from nsmesh.datapath import netns
from nsmesh.model.settings import PREFIX, SettingsError, load
from nsmesh.standalone.joining.first import FirstHost
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.nodes import OVS, Node, NodeForwarder
from nsmesh.standalone.processes import Command
from nsmesh.standalone.supervisor import Unit
from nsmesh.standalone.telling import last_words
from nsmesh.standalone.withdrawing import Withdrawing

FORWARDER_WISHES = (
    "vxlan_port",
    "vxlan_gro",
    "mechanism_priority",
    "mechanisms",
    "device_selector_file",
    "l2_resource_selector_file",
    "tunnels_apart",
    "srv6_prefix",
)
"""Settings of a forwarder that a mesh takes from its environment."""
OVS_WISHES = (
    "vxlan_port",
    "mechanism_priority",
    "mechanisms",
    "device_selector_file",
    "l2_resource_selector_file",
    "dpdk_memory",
    "spare_wires",
    "most_switches",
    "memif_apart",
    "switch_database",
    "datapath_type",
    "bridge_name",
)
"""The same of a forwarder with a switch."""
WHOLE = "NSM_VXLAN_GRO"
"""What a forwarder between nodes of one host is told, unless the environment says otherwise."""
READY = 10.0
"""Seconds within which a role that runs apart must answer."""


def command(role: str, *arguments: str) -> list[str]:
    """Return the command line of a role of its own."""
    return [sys.executable, "-m", "nsmesh.cli.main", "run", role, *arguments]


def search_path() -> str:
    """Return PATH with the folder of the command ``nsm`` in front."""
    return f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"


async def start_here(mesh: Mesh, stack: AsyncExitStack) -> None:
    """Run registry, manager and forwarders of the only node in this process."""
    paths, held = mesh.paths, mesh.runtime
    (node,) = mesh.nodes.values()
    if not mesh.first:
        registry = await stack.enter_async_context(_registry_here(mesh))
        if isinstance(mesh.hosts, FirstHost):
            mesh.hosts.port.out.append(Withdrawing(registry, mesh.scope))
    manager = NsmgrSettings(
        name=node.manager,
        listen_on=tuple(dict.fromkeys((node.manager_url, node.public_url))),
        node_name=node.name,
        registry_url=mesh.registry_url,
        excluded_prefixes_file=_excluded(mesh),
    )
    await stack.enter_async_context(running_nsmgr(manager, held))
    for one in node.forwarders:
        if one.kind == OVS:
            stack.push_async_callback(_end_switches, mesh)
            places = await mesh.switches.make(one)
            await stack.enter_async_context(
                running_ovs_forwarder(ovs_settings(node, one, places, os.environ), held)
            )
            continue
        forwarder = forwarder_settings(node, one, os.environ)
        datapath = driver_of(forwarder, owner=paths.owner_of(one.name), namespaces=netns.named)
        await stack.enter_async_context(
            running_forwarder(forwarder, held, datapath, mechanisms_of(forwarder))
        )
    several = "forwarders" if len(node.forwarders) > 1 else "forwarder"
    what = f"manager and {several} of node {node.name}" if mesh.first else f"registry, manager and {several}"
    mesh.events.add("mesh", f"mesh {paths.mesh} is up: {what} in one process")


async def _end_switches(mesh: Mesh) -> None:
    if not mesh.hands_over:
        await mesh.switches.aclose()


def labels_of(node: Node, forwarder: NodeForwarder, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of a forwarder; beside another one it has its kind among them, for matches.

    Those of the environment come first, and change none of its own. Raises Invalid for what are no labels.
    """
    wished = _wishes(ForwarderSettings, ("labels",), environment)["labels"]
    kind = {"forwarder": forwarder.kind} if len(node.forwarders) > 1 else {}
    return {**wished, "p2p": "true", **kind}


def ovs_settings(
    node: Node, forwarder: NodeForwarder, places: tuple[str, str], environment: Mapping[str, str]
) -> OvsForwarderSettings:
    """Return the settings of a forwarder: ``places`` are the namespaces of its switch and of ends in advance.

    Of the environment as :func:`forwarder_settings`. Raises Invalid likewise.
    """
    return OvsForwarderSettings(
        tunnel_ip=node.ip,
        **_wishes(OvsForwarderSettings, OVS_WISHES, environment),
        name=forwarder.name,
        labels=labels_of(node, forwarder, environment),
        connect_to=node.manager_url,
        listen_on=forwarder.url,
        switch_directory=forwarder.switch,
        switch_netns=places[0],
        spare_netns=places[1],
    )


def forwarder_settings(
    node: Node, forwarder: NodeForwarder, environment: Mapping[str, str]
) -> ForwarderSettings:
    """Return the settings of the forwarder of this process: of the environment, what is not the node's.

    As for a forwarder that is a process of its own. Raises Invalid for variables that cannot be used.
    """
    kept = _wishes(ForwarderSettings, FORWARDER_WISHES, environment)
    return ForwarderSettings(
        name=forwarder.name,
        labels=labels_of(node, forwarder, environment),
        connect_to=node.manager_url,
        listen_on=forwarder.url,
        tunnel_ip=node.ip,
        **kept,
    )


def _wishes(cls: type[Any], names: Iterable[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return those settings of a forwarder that are its environment's to say."""
    try:
        wanted = [f"{PREFIX}{name.upper()}" for name in names]
        wishes = load(cls, {name: environment[name] for name in wanted if name in environment})
    except SettingsError as error:
        raise Invalid(str(error), remedy="correct these variables") from error
    return {name: getattr(wishes, name) for name in names}


def _registry_here(mesh: Mesh) -> AbstractAsyncContextManager[Chain]:
    """Return the registry of this process, open to other hosts where there may be some."""
    outside = (mesh.hosts.place.address.registry,) if mesh.hosts is not None else ()
    settings = RegistrySettings(listen_on=(mesh.registry_url, *outside), database=str(mesh.paths.registry))
    front = mesh.runtime.registry_front(settings.registry_server_policies)
    return running_registry(settings, mesh.runtime, sqlite=True, front=front)


def _excluded(mesh: Mesh) -> str:
    return str(mesh.paths.state / "excluded_prefixes.yaml")


def role_units(mesh: Mesh) -> list[tuple[Unit, str]]:
    """Return the processes of a mesh whose roles run apart, in order, each with its URL on this host."""
    paths = mesh.paths
    found = [
        _unit(
            mesh,
            "registry",
            "registry-sqlite",
            {
                "NSM_NAME": f"registry-{mesh.paths.mesh}",
                "NSM_LISTEN_ON": mesh.registry_url,
                "NSM_DATABASE": str(mesh.paths.registry),
            },
        )
    ]
    urls = [mesh.registry_url]
    for node in mesh.nodes.values():
        listen_on = dict.fromkeys((node.manager_url, node.public_url))
        manager = {
            "NSM_NAME": node.manager,
            "NSM_LISTEN_ON": ",".join(listen_on),
            "NSM_REGISTRY_URL": mesh.registry_url,
            "NSM_EXCLUDED_PREFIXES_FILE": _excluded(mesh),
            "NSM_JOURNAL": str(paths.journal(node.manager_unit)),
            "NODE_NAME": node.name,
        }
        found.append(_unit(mesh, node.manager_unit, "nsmgr", manager, node.netns))
        found += [_forwarder_unit(mesh, node, one) for one in node.forwarders]
        urls += [node.manager_url, *(one.url for one in node.forwarders)]
    return list(zip(found, urls, strict=True))


def _forwarder_unit(mesh: Mesh, node: Node, forwarder: NodeForwarder) -> Unit:
    environment = {
        "NSM_NAME": forwarder.name,
        "NSM_CONNECT_TO": node.manager_url,
        "NSM_LISTEN_ON": forwarder.url,
        "NSM_LABELS": ",".join(
            f"{key}:{value}" for key, value in labels_of(node, forwarder, os.environ).items()
        ),
        "NSM_JOURNAL": str(mesh.paths.journal(forwarder.unit)),
        "NSM_TUNNEL_IP": node.ip,
    }
    if forwarder.kind == OVS:
        environment["NSM_SWITCH_DIRECTORY"] = forwarder.switch
        if not mesh.conditions.switch:
            environment["NSM_SWITCH_NETNS"] = f"{netns.RUN_NETNS}/{mesh.paths.netns(forwarder.space)}"
        environment["NSM_SPARE_NETNS"] = f"{netns.RUN_NETNS}/{mesh.paths.netns(forwarder.ends)}"
        return _unit(mesh, forwarder.unit, "forwarder-ovs", environment, node.netns)
    if mesh.several:  # their underlay is ours, and hands segments on whole
        environment[WHOLE] = os.environ.get(WHOLE, "false")
    return _unit(mesh, forwarder.unit, "forwarder", environment, node.netns)


def _unit(mesh: Mesh, name: str, program: str, environment: dict[str, str], place: str = "") -> Unit:
    environment["SPIFFE_ENDPOINT_SOCKET"] = mesh.paths.workload_api
    run = Command(command(program), mesh.paths.logs / f"{name}.log", netns=place, environment=environment)
    return Unit(name, "role", run, restart="always")


async def start_apart(mesh: Mesh) -> None:
    """Start each role as a process, on its node, and wait until all answer; raises MeshError."""
    if mesh.underlay is not None:
        await mesh.underlay.make(mesh.nodes.values())
        for node in mesh.nodes.values():
            mesh.identities.add(node.name, node.netns)
    for node in mesh.nodes.values():
        for forwarder in node.forwarders:
            if forwarder.kind == OVS:
                await mesh.switches.make(forwarder)
    units = role_units(mesh)
    for unit, _ in units:
        mesh.supervisor.start(unit)
    for unit, url in units:
        await answers(mesh, unit.name, url)
    where = f" on {len(mesh.nodes)} nodes" if mesh.underlay is not None else ""
    mesh.events.add(
        "mesh",
        f"mesh {mesh.paths.mesh} is up{where}: registry, manager and forwarder as processes of their own",
    )


async def answers(mesh: Mesh, name: str, url: str, given_up: Callable[[], bool] | None = None) -> None:
    """Wait until a process answers; raises Unavailable with its last words when it does not, or cannot live.

    ``given_up`` says when nobody need wait any more; else it may fail once.
    """
    unit = mesh.supervisor.units[name]
    end = mesh.scope.clock.monotonic() + READY * len(mesh.nodes)
    while True:
        try:
            await mesh.runtime.peers.get(url)
        except MeshError as error:
            hopeless = given_up() if given_up is not None else unit.failures > 1
            if hopeless or mesh.scope.clock.monotonic() > end:
                words = last_words(mesh.paths.logs / f"{name}.log")
                raise Unavailable(
                    f"the {name} does not answer at {url}, and said last: {words}",
                    remedy=f"see the logs in {mesh.paths.logs}",
                ) from error
            await asyncio.sleep(0.05)
        else:
            return
