"""``nsm restart``: by the book, with wires kept."""

from __future__ import annotations

import os
from pathlib import Path

import click

from nsmesh.api import control_pb2
from nsmesh.cli import control
from nsmesh.cli.context import Context, require_root, run
from nsmesh.cli.mesh import restored
from nsmesh.core.errors import Unavailable
from nsmesh.model import control as api
from nsmesh.standalone import launch
from nsmesh.standalone.lock import holder

MODULE = "nsmesh.cli.main"


@click.command(epilog="\b\nExamples:\n  nsm restart\n  nsm restart forwarder\n  nsm restart daemon\n")
@click.argument("what", metavar="[ROLE|ENDPOINT|daemon|all]", default="all")
@click.pass_obj
def restart(context: Context, what: str) -> None:
    """Restart parts of a mesh, as after an update; wires stay and lose no packet.

    ROLE is registry, nsmgr or forwarder, where they are processes of their own; with several nodes
    nsmgr-node1 and so on. The daemon hands over: processes, namespaces and wires stay, and the next one goes
    on with them.
    """
    require_root("a mesh")
    run(_restart(context, what))


async def _restart(context: Context, what: str) -> None:
    if what != "daemon":
        name = "" if what == "all" else what
        await control.steps(context, api.RESTART, control_pb2.UnitRequest(name=name))
    if what in {"daemon", "all"}:
        await _hand_over(context)


async def _hand_over(context: Context) -> None:
    """End the daemon, everything else kept, and start it as it was started."""
    paths = context.paths
    found = holder(paths.lock)
    if found is None:  # the next call says so in full
        await control.steps(context, api.HAND_OVER, control_pb2.Empty())
        return
    arguments = _arguments(found.pid)
    await control.steps(context, api.HAND_OVER, control_pb2.Empty())
    await launch.wait_gone(paths, found.pid)
    pid = await launch.launch(paths, arguments)
    context.say(f"the daemon of the mesh {paths.mesh} restarted: pid {found.pid} became {pid}", fg="green")
    await restored(context)


def _arguments(pid: int) -> list[str]:
    """Return with what ``nsm`` was called for a daemon; what it had of our variables is put into ours."""
    process = Path(f"/proc/{pid}")
    words = process.joinpath("cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    given = [word.decode() for word in words]
    if MODULE not in given:
        raise Unavailable(
            f"the daemon (pid {pid}) was started by something else than nsm up in the background",
            remedy="let that start it again; a daemon that is killed is gone on with as well",
        )
    for entry in process.joinpath("environ").read_bytes().split(b"\0"):
        name, _, value = entry.decode(errors="surrogateescape").partition("=")
        if name.startswith("NSM_"):
            os.environ[name] = value
    return given[given.index(MODULE) + 1 :]
