"""The audit of a mesh's part of this host: what of it there is without an owner."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from nsmesh.datapath import netns
from nsmesh.datapath.inventory import group_of
from nsmesh.datapath.leaks import Leak, counted, leaks, stray_namespaces
from nsmesh.endpoints.firewall_table import table_name
from nsmesh.endpoints.vpn_gateway import TABLE
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.nodes import MOST, nodes_of, owners_of
from nsmesh.standalone.paths import MeshPaths

AGAIN = 0.5
"""Seconds after which what was found must still be there: a wire is under way for less."""


async def leaked(mesh: Mesh) -> list[Leak]:
    """Return what a mesh has forgotten in its own namespaces and in those that have wires of it.

    Nothing while it is not ``up``: what an earlier run had is being taken over, or all is taken away.
    """
    if mesh.state != "up":
        return []
    return await lasting(lambda: _of(mesh))


async def left_behind(paths: MeshPaths, places: Iterable[str] = ()) -> list[Leak]:
    """Return what is there of a mesh that is down; ``places``: paths of others' namespaces that had wires."""
    nodes = [node for count in (1, MOST) for node in nodes_of(paths, count).values()]
    owners = {owner for node in nodes for one in node.forwarders for owner in owners_of(paths, one)}
    groups = {group_of(owner): () for owner in (*owners, paths.link_owner)}

    def look() -> list[Leak]:
        spaces = stray_namespaces(f"{paths.mesh}.", ())
        return spaces + leaks([*(leak.where for leak in spaces), *places], groups, tables=())

    return await lasting(look)


async def counts(mesh: Mesh) -> dict[tuple[str, ...], float]:
    """Return how many there are of each kind, for the metric ``nsmesh_leaks``."""
    return counted(await leaked(mesh))


async def lasting(
    look: Callable[[], list[Leak]], wait: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> list[Leak]:
    """Return what is found twice, with a moment between; nothing found at first is nothing at once."""
    first = look()
    if not first:
        return []
    await wait(AGAIN)
    again = set(look())
    return [leak for leak in first if leak in again]


def _of(mesh: Mesh) -> list[Leak]:
    paths = mesh.paths
    held = {
        (segment.name, segment.id)
        for connection in mesh.model.connections.values()
        for segment in connection.path.path_segments
    }
    owned = {
        group: {wire for name, wire in held if name == one.name}
        for node in mesh.nodes.values()
        for one in node.forwarders
        for group in map(group_of, owners_of(paths, one))
    }
    owned[group_of(paths.link_owner)] = {f"link:{name}" for name in mesh.spaces.links}
    tables = {TABLE, *(table_name(wire) for _, wire in held)}
    own = [f"{netns.RUN_NETNS}/{name}" for name in sorted(mesh.children.namespaces)]
    places = [*own, *sorted(mesh.children.places)]
    return stray_namespaces(f"{paths.mesh}.", mesh.children.namespaces) + leaks(places, owned, tables=tables)
