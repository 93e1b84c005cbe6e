"""``nsm up`` of a mesh that is up: what is asked for must be what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsmesh.cli import control
from nsmesh.cli.context import Context
from nsmesh.core.errors import Conflict

if TYPE_CHECKING:
    from nsmesh.standalone.joining.place import Place
    from nsmesh.standalone.paths import MeshPaths


def check_listening(paths: MeshPaths, place: Place) -> None:
    """Raise Conflict where a mesh that is up does not listen where it is asked to."""
    from nsmesh.standalone.joining.first import remembered  # noqa: PLC0415 - seldom

    if remembered(paths.listening) != place:
        raise Conflict(
            f"the mesh {paths.mesh} is up already, and other hosts cannot join it at {place.address}",
            remedy=f"take it down first: nsm --mesh {paths.mesh} down",
        )


async def check_nodes(context: Context, wanted: int) -> None:
    """Raise Conflict where a mesh that is up has another number of nodes on this host than is asked for."""
    async with context.control() as client:
        count = sum(row["here"] for row in await control.rows(client, "nodes"))
    if count != wanted:
        mesh = context.paths.mesh
        raise Conflict(
            f"the mesh {mesh} is up already, with {count} {'node' if count == 1 else 'nodes'}",
            remedy=f"take it down first: nsm --mesh {mesh} down",
        )
