"""``nsm upgrade``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from nsmesh import __version__
from nsmesh.api import control_pb2
from nsmesh.cli import control
from nsmesh.cli.context import Context, require_root, run
from nsmesh.cli.mesh import restored
from nsmesh.core.errors import MeshError, Refused, Unavailable, Unimplemented
from nsmesh.model import control as api
from nsmesh.standalone import launch
from nsmesh.standalone.processes import NSM


@click.command(epilog="\b\nExamples:\n  nsm upgrade --check\n  nsm upgrade\n")
@click.option("--check", is_flag=True, help="Only say whether it can be done; nothing is changed.")
@click.pass_obj
def upgrade(context: Context, *, check: bool) -> None:
    """Let a mesh go over to the installation that this command belongs to, while it is up.

    That is the same one after an update, or another one beside it. Roles and endpoints follow one another,
    the daemon comes last; wires lose no packet, and Requests wait. One that does not get ready sends all back
    to the version that ran.
    """
    require_root("a mesh")
    run(_upgrade(context, check=check))


async def _upgrade(context: Context, *, check: bool) -> None:
    async with context.control() as client:
        before = await control.status(client)
    old = before["version"]
    request = control_pb2.UpgradeRequest(executable=sys.executable, version=__version__, check=check)
    arguments = _arguments(before["pid"])
    try:
        await control.steps(context, api.UPGRADE, request)
    except Unimplemented as error:
        raise Refused(
            f"the mesh {before['mesh']} runs nsmesh {old}, which cannot be upgraded while it is up",
            remedy="take it down and up again: nsm down; nsm up",
        ) from error
    if check:
        context.say(
            f"the mesh {before['mesh']} runs {old} by {before['python']}, "
            f"and can go over to {__version__} by {sys.executable}"
        )
        return
    try:
        await launch.wait_gone(context.paths, before["pid"])
        pid = await launch.succeeded(context.paths)
    except MeshError as error:
        await _back(context, before, arguments, error)
    context.say(
        f"the mesh {before['mesh']} runs {__version__}, and ran {old}; its daemon is pid {pid}", fg="green"
    )
    await restored(context)


def _arguments(pid: int) -> list[str]:
    """Return with what ``nsm`` was called for a daemon."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    given = [word.decode() for word in words]
    return given[given.index(NSM[1]) + 1 :] if NSM[1] in given else []


async def _back(context: Context, before: dict[str, Any], arguments: list[str], error: MeshError) -> Any:
    """Start the daemon of the version that ran, and say why; it goes on with all that runs."""
    try:
        pid = await launch.launch(context.paths, arguments, before["python"])
    except MeshError as second:
        error.add_note(f"and the daemon of version {before['version']} does not start again: {second}")
        raise error from second
    raise Unavailable(
        f"the daemon of version {__version__} does not start, and that of {before['version']} goes on "
        f"(pid {pid}): {error.what}",
        remedy="see: nsm logs daemon; roles and endpoints run the new version already, so upgrade again soon",
    ) from error
