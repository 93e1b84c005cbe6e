"""``nsm status``."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from nsmesh.cli import control, output
from nsmesh.cli.context import Context, NotUp, run


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
        left = _left(context)
        if left:
            raise NotUp(
                f"the mesh {context.paths.mesh} is dead; it left {len(left)} things: {', '.join(left)}",
                remedy="start it again with: nsm up, or clean up with: nsm down",
            ) from None
        raise
    if style == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif style == "yaml":
        click.echo(output.as_yaml(data), nl=False)
    else:
        _print_status(data)


def _left(context: Context) -> list[str]:
    """Return what a dead mesh left, in words; only root can see it all."""
    if os.geteuid() != 0 or not context.paths.children.exists():
        return []
    from nsmesh.standalone import leftovers  # noqa: PLC0415 - half of the mesh, and seldom

    return leftovers.find(context.paths)


def _print_status(data: dict[str, Any]) -> None:
    count = data["connections"]
    click.echo(
        f"mesh {data['mesh']}: {data['state']}, pid {data['pid']}, up {data['uptime']}, "
        f"{count} {'wire' if count == 1 else 'wires'}, version {data['version']}"
    )
    click.echo(f"run {data['run_dir']}, state {data['state_dir']}")
    node = ("node",) if any(row.get("node") for row in data.get("roles") or []) else ()
    for title, columns in (
        ("roles", ("role", "name", "state", "node", "pid", "url")),
        ("endpoints", ("name", "type", "state", *node, "pid", "restarts")),
        ("clients", ("name", "state", "wires", *node, "pid", "message")),
        ("dead", ("name", "why", "ago", "restarted")),
        ("underlay", ("narrow",)),
        ("audit", ("chain", "element", "connection")),
        ("unclosed", ("chain", "connection", "at")),
        ("leaks", ("kind", "name", "where", "owner")),
    ):
        rows = data.get(title) or []
        if rows:
            click.secho(f"\n{title}", bold=True)
            for line in output.table(rows, columns).splitlines():
                click.echo("  " + output.coloured(line))
