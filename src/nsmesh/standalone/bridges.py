"""Bridges and ports that a dead mesh has left at somebody else's Open vSwitch."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.datapath.ovs_shared import leave
from nsmesh.datapath.ovs_there import path_of
from nsmesh.standalone.nodes import OVS, Node
from nsmesh.standalone.paths import MeshPaths

log = structlog.get_logger()


async def forsake(paths: MeshPaths, database: str, nodes: Iterable[Node]) -> list[str]:
    """Take what a dead mesh has left at somebody else's switch away; return it in words."""
    gone: list[str] = []
    if not database:
        return gone
    for forwarder in (one for node in nodes for one in node.forwarders if one.kind == OVS):
        try:
            names = await leave(path_of(database), paths.owner_of(forwarder.name))
        except MeshError as error:
            log.warning("bridges of a dead mesh cannot be taken away", database=database, error=str(error))
            return gone
        gone += [f"{name} at {database}" for name in names]
    return gone
