"""The nodes of a mesh as ``nsm get nodes`` shows them, and the managers of other hosts."""

from __future__ import annotations

import nsmesh
from nsmesh.api import join_pb2
from nsmesh.model.times import rfc3339
from nsmesh.standalone.joining.roster import SILENT
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.nodes import names_of
from nsmesh.standalone.rows_connection import Row
from nsmesh.standalone.telling import duration

ALONE = "this host"
"""What the only node of a mesh on one host is called: it needs no name."""


def parts(mesh: Mesh) -> dict[str, str]:
    """Return which node each manager and forwarder is on, by name."""
    found = {node.manager: node.name for node in mesh.nodes.values()}
    found |= {one.name: node.name for node in mesh.nodes.values() for one in node.forwarders}
    for name in mesh.elsewhere:
        found |= dict.fromkeys(names_of(mesh.paths, name), name)
    return found


def node_rows(mesh: Mesh) -> list[Row]:
    """Return the nodes, those on this host first."""
    here = [
        {
            "name": node.name or ALONE,
            "state": "up",
            "address": node.ip,
            "manager": node.public_url,
            "version": nsmesh.__version__,
            "here": True,
            "first": not mesh.first,
            "joined": "",
            "seen": "",
        }
        for node in mesh.nodes.values()
    ]
    first = mesh.hosts.first if mesh.hosts is not None else ""
    return here + [_elsewhere(mesh, node, first=node.name == first) for node in mesh.elsewhere.values()]


def _elsewhere(mesh: Mesh, node: join_pb2.Node, *, first: bool) -> Row:
    now = mesh.scope.clock.now()
    return {
        "name": node.name,
        "state": _state(mesh, node),
        "address": node.address,
        "manager": node.manager_url,
        "version": node.version,
        "here": False,
        "first": first,
        "joined": rfc3339(node.joined) if node.joined else "",
        "seen": f"{duration(max(now - node.seen, 0.0))} ago" if node.seen else "never",
    }


def _state(mesh: Mesh, node: join_pb2.Node) -> str:
    """Return ``up``, or ``silent`` for a host that has said nothing for a while."""
    return "up" if mesh.scope.clock.now() - node.seen <= SILENT else "silent"


def managers_elsewhere(mesh: Mesh) -> list[Row]:
    """Return the managers of other hosts; their connections are shown there."""
    return [
        {
            "name": names_of(mesh.paths, node.name)[0],
            "state": _state(mesh, node),
            "url": node.manager_url,
            "connections": None,
            "node": node.name,
            "pid": None,
        }
        for node in mesh.elsewhere.values()
    ]
