"""What the endpoints of a mesh say of themselves: rule counters of a firewall, peers of a gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from nsmesh.api import control_pb2
from nsmesh.core.errors import MeshError
from nsmesh.elements.peer import RemotePeer
from nsmesh.model.control import ENDPOINT_STATUS
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.rows_connection import Row

PATIENCE = 1.0
"""Seconds that an endpoint may take to answer; who is later says nothing."""


async def add_statuses(mesh: Mesh, rows: Sequence[Row]) -> None:
    """Put into each endpoint's row what its process says: ``status``, tables of plain data by title."""
    for row, status in zip(rows, await asyncio.gather(*(_of(mesh, row) for row in rows)), strict=True):
        row["status"] = status


async def _of(mesh: Mesh, row: Row) -> dict[str, Any]:
    if row["pid"] is None or not row["url"]:
        return {}
    try:
        async with asyncio.timeout(PATIENCE) as limit:
            peer = await mesh.runtime.peers.get(row["url"])
            assert isinstance(peer, RemotePeer)
            body = control_pb2.Empty().SerializeToString()
            reply = await peer.client.unary(ENDPOINT_STATUS, body, deadline=limit.when())
    except (MeshError, TimeoutError) as error:
        return {"trouble": [{"status": str(error) or f"no answer in {PATIENCE:g} s"}]}
    status: dict[str, Any] = json.loads(control_pb2.Item.FromString(reply.message).json)
    return status
