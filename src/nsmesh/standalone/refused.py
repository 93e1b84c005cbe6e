"""What the wires of a connection have refused, because their payload is another."""

from __future__ import annotations

from nsmesh.datapath import netns
from nsmesh.datapath.payload_counts import refused_at
from nsmesh.model.messages import Connection
from nsmesh.standalone.mesh import Mesh


def refused(mesh: Mesh, connection: Connection) -> dict[str, int]:
    """Return what the wires of a connection have refused on this host, by what it was."""
    wires = {segment.id for segment in connection.path.path_segments}
    own = [f"{netns.RUN_NETNS}/{name}" for name in sorted(mesh.children.namespaces)]
    return dict(refused_at([*own, *sorted(mesh.children.places)], wires))
