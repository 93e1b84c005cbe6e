"""``nsm up``, ``down`` and ``status``."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import click
import yaml

from nsmesh.api import control_pb2
from nsmesh.cli import control, output
from nsmesh.cli.context import Context, NotUp, require_root, run
from nsmesh.core.errors import MeshError
from nsmesh.model import control as api
from nsmesh.standalone import launch
from nsmesh.standalone.paths import daemon_pid


@click.command()
@click.option("--foreground", is_flag=True, help="Stay in the foreground; Ctrl-C takes the mesh down.")
@click.option(
    "--separate", is_flag=True, help="Run registry, manager, forwarder and clients as processes of their own."
)
@click.option("-f", "--file", "files", multiple=True, help="Apply these manifests once it is up.")
@click.pass_obj
def up(context: Context, files: tuple[str, ...], *, foreground: bool, separate: bool) -> None:
    """Bring a mesh up on this host; nothing happens if it is up already."""
    require_root("a mesh")
    paths = context.paths
    paths.make()
    if foreground:
        from nsmesh.standalone import daemon  # noqa: PLC0415 - the whole mesh, for this one command

        level = ("INFO", "DEBUG", "TRACE")[min(context.verbose, 2)]
        daemon.run(paths, separate=separate, level="WARN" if context.quiet else level)
        return
    if (pid := daemon_pid(paths)) is not None:
        context.say(f"mesh {paths.mesh} is up already (pid {pid})")
    else:
        _start(context, separate=separate)
    for text, source in control.read_sources(files):
        request = control_pb2.ApplyRequest(text=text, source=source, wait=True)
        run(control.steps(context, api.APPLY, request))


def _start(context: Context, *, separate: bool) -> None:
    paths = context.paths
    left = run(launch.clean_up(paths))
    for item in left:
        context.say(f"removed what a dead mesh had left: {item}", fg="yellow")
    paths.make()
    arguments = ["--mesh", paths.mesh, "--run-dir", str(paths.run), "--state-dir", str(paths.state)]
    arguments += ["-v"] * context.verbose + ["up", "--foreground"] + (["--separate"] if separate else [])
    pid = run(launch.launch(paths, arguments))
    context.say(f"mesh {paths.mesh} is up (pid {pid}, {paths.run})", fg="green")


@click.command()
@click.option("--purge", is_flag=True, help="Forget registered services and applied documents too.")
@click.pass_obj
def down(context: Context, *, purge: bool) -> None:
    """Take a mesh down: its wires, endpoints, workloads, namespaces and sockets."""
    require_root("a mesh")
    paths = context.paths

    async def work() -> bool:
        was_up = True
        try:
            await control.steps(context, api.DOWN, control_pb2.Empty())
        except NotUp:
            was_up = False
        except MeshError as error:
            context.say(f"the daemon did not end well: {error}", fg="yellow", err=True)
        await launch.wait_gone(paths)
        for item in await launch.clean_up(paths):
            context.say(f"removed what a dead mesh had left: {item}", fg="yellow")
        return was_up

    was_up = run(work())
    if purge:
        import shutil  # noqa: PLC0415 - for this option alone

        shutil.rmtree(paths.state, ignore_errors=True)
    context.say(f"mesh {paths.mesh} is down" if was_up else f"mesh {paths.mesh} was not up")


@click.command()
@click.option("-o", "--output", "style", type=click.Choice(output.FORMATS), default="table")
@click.pass_obj
def status(context: Context, style: str) -> None:
    """Show how a mesh is: roles, endpoints, workloads, wires, and what was found dead."""

    async def work() -> dict[str, Any]:
        async with context.control() as client:
            return await control.status(client)

    try:
        data = run(work())
    except NotUp:
        left = asyncio.run(_left_behind(context))
        if left:
            raise NotUp(
                f"the mesh {context.paths.mesh} is dead; it left {len(left)} things: {', '.join(left)}",
                remedy="clean up with: nsm down, or start again with: nsm up",
            ) from None
        raise
    if style == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif style == "yaml":
        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)
    else:
        _print_status(data)


async def _left_behind(context: Context) -> list[str]:
    """Return what a dead daemon left on this host, without touching it."""
    from nsmesh.standalone import processes  # noqa: PLC0415 - only after a crash
    from nsmesh.standalone.children import Children  # noqa: PLC0415 - likewise

    children = Children(context.paths.children)
    left = [f"process {name}" for name, item in children.processes.items() if processes.alive(item)]
    left += [f"namespace {name}" for name in children.namespaces if os.path.lexists(f"/run/netns/{name}")]
    return sorted(left)


def _print_status(data: dict[str, Any]) -> None:
    click.echo(
        f"mesh {data['mesh']}: {data['state']}, pid {data['pid']}, up {data['uptime']}, "
        f"{data['connections']} wires, version {data['version']}"
    )
    click.echo(f"run {data['run_dir']}, state {data['state_dir']}")
    for title, columns in (
        ("roles", ("role", "name", "state", "pid", "url")),
        ("endpoints", ("name", "type", "state", "pid", "restarts")),
        ("clients", ("name", "state", "wires", "pid", "message")),
        ("dead", ("name", "why", "ago", "restarted")),
        ("leaks", ("what", "where")),
    ):
        rows = data.get(title) or []
        if rows:
            click.secho(f"\n{title}", bold=True)
            for line in output.table(rows, columns).splitlines():
                click.echo("  " + output.coloured(line))
