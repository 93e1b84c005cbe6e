"""A mesh from its start to its end: first the roles, last the nodes that they live on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.datapath.leaks import LEAKS
from nsmesh.standalone.forking import ForkServer
from nsmesh.standalone.joining.place import Place
from nsmesh.standalone.leaks import counts
from nsmesh.standalone.log_files import keep_small
from nsmesh.standalone.mesh import Mesh, composed
from nsmesh.standalone.nodes import Conditions
from nsmesh.standalone.paths import MeshPaths
from nsmesh.standalone.roles import start_apart, start_here

log = structlog.get_logger()

PATIENCE = 6.0
"""Seconds that one step of going down may take; what resists longer is killed or left to its own end."""


@asynccontextmanager
async def running_mesh(
    paths: MeshPaths,
    *,
    separate: bool,
    conditions: Conditions | None = None,
    listen: Place | None = None,
    forks: ForkServer | None = None,
) -> AsyncIterator[Mesh]:
    """Run a mesh while the block runs; leaving takes down everything that it made.

    ``conditions``: several nodes, and what joins them; their roles run apart in any case. ``listen``: where
    other hosts may join. ``forks`` starts our processes.
    """
    conditions = conditions or Conditions()
    separate = separate or conditions.nodes > 1
    async with AsyncExitStack() as stack:
        mesh = await composed(paths, stack, separate=separate, conditions=conditions, listen=listen)
        preparing = []
        if forks is not None:
            stack.callback(mesh.forks.close)
            preparing = [mesh.scope.spawn(mesh.forks.use(forks), name="fork server")]
        if separate:
            await asyncio.gather(*preparing)
            stack.push_async_callback(_take_down, mesh)  # also of a start that fails half-way
            await start_apart(mesh)
        else:
            await start_here(mesh, stack)  # of these it starts none
            stack.push_async_callback(_take_down, mesh)
            await asyncio.gather(*preparing)
        await mesh.model.start()
        mesh.scope.spawn(keep_small(paths.logs), name="logs")
        stack.enter_context(LEAKS.reading(partial(counts, mesh)))
        yield mesh


async def _take_down(mesh: Mesh) -> None:
    """Wires first, by the book; then workloads, endpoints, links, namespaces; the roles come last.

    Who hands over only stops asking, before the roles of this process end.
    """
    if mesh.hands_over:
        await mesh.clients.rest()
        return
    steps: list[tuple[str, Any]] = [
        ("wires", mesh.clients.aclose),
        ("workloads and endpoints", lambda: mesh.supervisor.stop(*_units(mesh, roles=False))),
        ("links and namespaces", mesh.spaces.aclose),
        *((f"roles: {role}", partial(_stop_role, mesh, role)) for role in ("forwarder", "nsmgr", "registry")),
    ]
    if mesh.separate:
        steps.append(("switches", mesh.switches.aclose))
    if mesh.underlay is not None:
        steps.append(("nodes", mesh.underlay.aclose))
    for what, step in steps:
        try:
            async with asyncio.timeout(PATIENCE):
                await step()
        except (MeshError, TimeoutError) as error:
            log.warning("going down: something resisted", what=what, error=str(error))


async def _stop_role(mesh: Mesh, role: str) -> None:
    """Stop all processes of a role while those that they say goodbye to are still there."""
    units = [name for name in _units(mesh, roles=True) if name.removeprefix("ovs-").startswith(role)]
    await mesh.supervisor.stop(*units)


def _units(mesh: Mesh, *, roles: bool) -> list[str]:
    return [name for name, unit in mesh.supervisor.units.items() if (unit.kind == "role") == roles]
