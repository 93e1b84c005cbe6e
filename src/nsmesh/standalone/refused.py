"""What the wires of a connection have refused, because their payload is another."""

from __future__ import annotations

from collections import Counter

from nsmesh.datapath import netns
from nsmesh.datapath.payload_counts import refused_at
from nsmesh.model.messages import Connection
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.rows_connection import Row


def refused(mesh: Mesh, connection: Connection) -> dict[str, int]:
    """Return what the wires of a connection have refused on this host, by what it was."""
    wires = {segment.id for segment in connection.path.path_segments}
    own = [f"{netns.RUN_NETNS}/{name}" for name in sorted(mesh.children.namespaces)]
    return dict(refused_at([*own, *sorted(mesh.children.places)], wires))


async def add_refused(mesh: Mesh, rows: list[Row]) -> None:
    """Add what the nodes' switches have refused, to rows of connections that tell what was refused at all."""
    for row in rows:
        if row["refused"] is not None:
            own = await mesh.switches.refused({hop["id"] for hop in row["hops"]})
            row["refused"] = dict(Counter(row["refused"]) + own)
