"""``nsm restart``."""

from __future__ import annotations

import click

from nsmesh.api import control_pb2
from nsmesh.cli import control
from nsmesh.cli.context import Context, require_root, run
from nsmesh.cli.mesh import restored
from nsmesh.model import control as api
from nsmesh.standalone import launch
from nsmesh.standalone.lock import holder


@click.command(epilog="\b\nExamples:\n  nsm restart\n  nsm restart forwarder\n  nsm restart daemon\n")
@click.argument("what", metavar="[ROLE|ENDPOINT|daemon|all]", default="all")
@click.pass_obj
def restart(context: Context, what: str) -> None:
    """Restart parts of a mesh; wires stay and lose no packet, and Requests wait for the next process.

    ROLE is registry, nsmgr or forwarder, where they are processes of their own; with several nodes
    nsmgr-node1 and so on. The daemon hands over: processes, namespaces, sockets and wires stay, and the next
    one goes on with them. New code that was installed is run by nsm upgrade.
    """
    require_root("a mesh")
    run(_restart(context, what))


async def _restart(context: Context, what: str) -> None:
    if what != "daemon":
        name = "" if what == "all" else what
        await control.steps(context, api.RESTART, control_pb2.UnitRequest(name=name))
    if what in {"daemon", "all"}:
        await hand_over(context)


async def hand_over(context: Context, executable: str = "") -> None:
    """Let the daemon hand over to a next one, by another Python where one is named, and wait for that.

    Raises MeshError: while the daemon that ran runs on, or with what the next one said last.
    """
    paths = context.paths
    found = holder(paths.lock)
    await control.steps(context, api.HAND_OVER, control_pb2.HandOverRequest(executable=executable))
    before = found.pid if found is not None else 0
    await launch.wait_gone(paths, before)
    pid = await launch.succeeded(paths)
    context.say(f"the daemon of the mesh {paths.mesh} restarted: pid {before} became {pid}", fg="green")
    await restored(context)
