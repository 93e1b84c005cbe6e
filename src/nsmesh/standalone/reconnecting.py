"""Asking again for what was connected by hand, when a mesh is started again."""

from __future__ import annotations

import asyncio

from nsmesh.core.errors import MeshError
from nsmesh.model import nsurl
from nsmesh.standalone.connects import Connect, gone
from nsmesh.standalone.mesh import Mesh

PATIENCE = 10.0
"""Seconds that a start waits for the wires; they are asked for until they are there all the same."""


async def reconnect(mesh: Mesh) -> None:
    """Ask for all wires that an earlier run of this mesh was asked for by hand.

    Whose process or namespace is gone is told, and forgotten.
    """
    tasks: list[asyncio.Task[None]] = []
    for connect in mesh.connects:
        try:
            tasks += await _again(mesh, connect)
        except MeshError as error:
            mesh.connects.drop(connect.client)
            mesh.events.add("client", gone(connect, error), failed=True, remedy=error.remedy)
    if tasks:
        await asyncio.wait(tasks, timeout=PATIENCE)


async def _again(mesh: Mesh, connect: Connect) -> list[asyncio.Task[None]]:
    connect.check()
    name = connect.client
    urls = [nsurl.parse(url) for url in connect.urls]
    if name not in mesh.clients.known:
        node = connect.node if connect.node in mesh.nodes else ""
        mesh.placement.put("client", name, node)
    client = await mesh.clients.add(name, connect.netns)
    mesh.followers.follow(name, connect.netns, connect.pid)
    mesh.children.add_place(connect.netns)
    mesh.clients.keep(client, urls)
    mesh.events.add("client", f"restored the wires of client {name}, as they were connected by hand")
    return [wire.task for wire in client.wires.values() if wire.task is not None]
