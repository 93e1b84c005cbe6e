"""Going on with what a killed daemon left: what can be proved to be its own stays as it is."""

from __future__ import annotations

from pathlib import Path

from nsmesh.core.unclosed import UNCLOSED
from nsmesh.datapath import netns
from nsmesh.rpc import inherited
from nsmesh.rpc.address import parse
from nsmesh.standalone import leftovers, processes
from nsmesh.standalone.children import Children
from nsmesh.standalone.fork_keeper import NAME
from nsmesh.standalone.forking import ForkServer
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.nodes import Conditions
from nsmesh.standalone.paths import MeshPaths
from nsmesh.standalone.underlay import UNDERLAY

CLIENT = "client "
"""What the name of a client's chain begins with."""


def mode_of(conditions: Conditions, *, separate: bool) -> str:
    """Return how a mesh is brought up, as one word; what another way of it left is not gone on with."""
    mode = f"{'apart' if separate else 'one'}/{conditions}"
    return f"{mode}/{conditions.switch}" if conditions.switch else mode


async def take_over(paths: MeshPaths, mode: str, forks: ForkServer) -> list[str]:
    """Make ready for a start after a kill; return in words what was taken away for it.

    ``forks``: our own fork server, which may be that of the killed one.

    A mesh that was up in the same ``mode`` is gone on with: its processes, namespaces and wires stay, and are
    taken up one by one as the start comes to them (see :class:`Children`). Else all of it goes.
    """
    children = Children(paths.children)
    there = children.processes.get(NAME)
    if there is not None and there.pid == forks.pid:
        children.drop_process(NAME)
    if children.mode != mode:
        return await leftovers.clean(paths)
    if not inherited.waits(parse(f"unix://{paths.control}")):
        paths.control.unlink(missing_ok=True)
    return []


async def settle(mesh: Mesh) -> list[str]:
    """Take away what a killed daemon left and nobody has taken up; return it in words."""
    gone = await _end_clients(mesh)
    wanted = {NAME, *(name for _, name in mesh.documents.known), *mesh.supervisor.units}
    strays = {name: one for name, one in mesh.children.processes.items() if name not in wanted}
    gone += [f"process {name} (pid {one.pid})" for name, one in strays.items() if processes.members(one)]
    await processes.stop(list(strays.values()), leftovers.GRACE)
    for name in strays:
        mesh.children.drop_process(name)
    owners = wanted | set(mesh.spaces.known) | set(mesh.nodes) | {UNDERLAY}
    owners |= {name for node in mesh.nodes.values() for one in node.forwarders for name in one.spaces}
    kept = {mesh.paths.netns(owner) for owner in owners}
    for name in sorted(mesh.children.namespaces - kept):
        gone.append(f"namespace {name}")
        if Path(f"{netns.RUN_NETNS}/{name}").exists():
            await leftovers.end_inside(f"{netns.RUN_NETNS}/{name}")
            netns.delete(name)
        mesh.children.drop_namespace(name)
    return gone


async def _end_clients(mesh: Mesh) -> list[str]:
    """Close the connections of clients that the journal knows and nobody asks for any more."""
    journal = mesh.runtime.journal
    if journal is None:
        return []
    gone = await mesh.clients.close_unclaimed()
    for chain in journal.chains():
        whose = chain.removeprefix(UNCLOSED)
        name = whose.removeprefix(CLIENT)
        if whose.startswith(CLIENT) and name not in mesh.clients.known:
            if chain == whose:
                gone += sorted(f"connection {key}" for key in journal.records(chain))
            await mesh.clients.add(name, "")  # it takes up what is to be closed
            await mesh.clients.close_unclaimed()
            await mesh.clients.remove(name)
    return gone
