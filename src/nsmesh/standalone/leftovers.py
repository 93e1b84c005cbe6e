"""What a dead daemon left on this host: finding it, and taking it away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.datapath import netns
from nsmesh.datapath.vlans import VlanDatapath
from nsmesh.endpoints.memif_answers import folder_of
from nsmesh.standalone import processes
from nsmesh.standalone.bridges import forsake
from nsmesh.standalone.children import Children
from nsmesh.standalone.forwarder_wishes import ForwarderWishes
from nsmesh.standalone.hosting import remembered
from nsmesh.standalone.lock import MeshLock
from nsmesh.standalone.nodes import MOST, Node, node_of_host, nodes_of, owners_of
from nsmesh.standalone.paths import MeshPaths

log = structlog.get_logger()

GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL: whom an orderly end would need is dead."""


def find(paths: MeshPaths) -> list[str]:
    """Return what a dead daemon left, in words, without touching it. Must not be asked while one lives."""
    children = Children(paths.children)
    left = [
        f"process {name} (pid {process.pid})"
        for name, process in sorted(children.processes.items())
        if processes.members(process)
    ]
    left += [f"namespace {name}" for name in sorted(children.namespaces) if _exists(name)]
    return left


def _exists(name: str) -> bool:
    return os.path.lexists(f"{netns.RUN_NETNS}/{name}")


async def clean(paths: MeshPaths) -> list[str]:
    """Take away what a dead daemon left: processes, namespaces, wires; return it in words.

    The caller holds the mesh's lock. Logs and the lock itself stay.
    """
    left = find(paths)
    children = Children(paths.children)
    if children.processes or children.namespaces or children.places:
        await processes.stop(list(children.processes.values()), GRACE)
        for name in sorted(children.namespaces):
            await end_inside(f"{netns.RUN_NETNS}/{name}")
        for name in children.processes:
            shutil.rmtree(folder_of(name, paths.files.resolve()), ignore_errors=True)
        nodes = _nodes(paths, children.namespaces)
        left += await forsake(paths, ForwarderWishes.load(paths.forwarders).switch, nodes)
        owners = [owner for node in nodes for one in node.forwarders for owner in owners_of(paths, one)]
        left += await _sweep(paths, children.places, owners)
        for name in sorted(children.namespaces):
            netns.delete(name)
    sockets = (paths.control, *paths.run.glob("*.sock"), *paths.run.glob("sock/*.sock"))
    for stale in (paths.children, *sockets, *paths.journals.glob("*")):
        stale.unlink(missing_ok=True)
    return left


def _nodes(paths: MeshPaths, namespaces: Collection[str]) -> list[Node]:
    """Return the nodes that may have had wires: those that have a namespace, and this host."""
    nodes = [node for node in nodes_of(paths, MOST).values() if paths.netns(node.name) in namespaces]
    (single,) = nodes_of(paths, 1).values()
    place = remembered(paths)
    among = node_of_host(paths, place).values() if place else ()
    return [single, *among, *nodes]


async def end_inside(namespace: str) -> None:
    """End whatever still runs in a namespace of ours: a daemon that a workload left there would keep it."""
    strays = processes.inside(namespace)
    if strays:
        log.info("ending what still runs in a namespace", netns=namespace, pids=[item.pid for item in strays])
        await processes.stop_each(strays)


async def _sweep(paths: MeshPaths, places: Iterable[str], owners: Iterable[str]) -> list[str]:
    """Delete the interfaces of a dead mesh in the namespaces of others."""
    own = f"{netns.RUN_NETNS}/{paths.mesh}."
    wanted = dict.fromkeys([*places, *netns.named(), *netns.of_processes()])
    wanted = dict.fromkeys(place for place in wanted if not place.startswith(own) and Path(place).exists())
    swept: list[str] = []
    for owner in (*owners, paths.link_owner):
        datapath = VlanDatapath(owner=owner, namespaces=lambda: wanted)
        try:
            gone = await datapath.sweep(())
            swept += [f"interface {item.name} in {item.netns}" for item in gone]
        except MeshError as error:
            log.warning("interfaces of a dead mesh cannot be taken away", owner=owner, error=str(error))
        finally:
            await datapath.aclose()
    return swept


async def clear(paths: MeshPaths) -> list[str]:
    """Take away what a dead daemon left, and its run directory; return it in words.

    Raises Conflict while a daemon lives.
    """
    if not paths.run.exists():
        return []
    paths.make()
    lock = MeshLock(paths)
    lock.take()
    try:
        left = await clean(paths)
        paths.clear()
    finally:
        lock.release()
    return left
