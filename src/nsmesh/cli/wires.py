"""``nsm connect`` and ``nsm disconnect``."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import click

from nsmesh.api import control_pb2
from nsmesh.cli import completing, control
from nsmesh.cli.context import Context, run
from nsmesh.model import control as api


def _one_place(netns: str, pid: int) -> None:
    if bool(netns) == bool(pid):
        raise click.UsageError("say where the wire shall end: --netns NAME, or --pid PID (one of them)")


@click.command(
    epilog="\b\n"
    "Examples:\n"
    "  nsm connect kernel://secure-intranet-connectivity/nsm-1?app=web --pid 4711\n"
    "  nsm connect kernel://secure-intranet-connectivity --netns my-container\n"
    "  nsm connect vhost-user://secure-intranet-connectivity --netns my-machine\n",
)
@click.argument("url")
@click.option("--netns", default="", help="Network namespace: a name of `ip netns`, or a path.")
@click.option("--pid", type=click.IntRange(min=1), default=None, help="A process in the namespace.")
@click.option("--name", default="", help="Name of the client; default: made from namespace or pid.")
@click.option("--node", default="", help="Node whose manager is asked; default: the mesh chooses.")
@click.option(
    "-o",
    "--output",
    "style",
    type=click.Choice(["text", "json"]),
    default="text",
    help="How to print: each step, or the connection.",
)
@click.pass_obj
def connect(
    context: Context, url: str, netns: str, pid: int | None, name: str, node: str, style: str
) -> None:
    """Wire whatever already runs on this host to a service.

    URL is kernel://SERVICE/INTERFACE?label=value; interface and labels may be left out. memif://SERVICE and
    vhost-user://SERVICE end in a socket that is told, for a packet processor or a virtual machine's monitor.
    The wire lives until it is disconnected, or its process or namespace ends; it comes back when the mesh is
    started again.
    """
    _one_place(netns, pid or 0)
    request = control_pb2.ConnectRequest(url=url, netns=netns, pid=pid or 0, client=name, node=node)
    if style == "text":
        run(control.steps(context, api.CONNECT, request))
        return
    facts = run(control.steps(replace(context, quiet=True), api.CONNECT, request))
    wanted = next(fact["connection"] for fact in reversed(facts) if fact["connection"])

    async def listing() -> list[dict[str, Any]]:
        async with context.control() as client:
            return await control.rows(client, "connections", name=wanted)

    for row in run(listing()):
        click.echo(json.dumps(row, indent=2, ensure_ascii=False))


@click.command(
    epilog="\b\nExamples:\n  nsm disconnect my-container-0\n  nsm disconnect --pid 4711\n",
)
@click.argument("connection", required=False, default="", shell_complete=completing.connections)
@click.option("--client", default="", help="All connections of a client.", shell_complete=completing.clients)
@click.option("--netns", default="", help="All connections into a network namespace.")
@click.option("--pid", type=click.IntRange(min=1), default=None, help="All connections of a process.")
@click.pass_obj
def disconnect(context: Context, connection: str, client: str, netns: str, pid: int | None) -> None:
    """Take wires away: by connection id, client, namespace or process."""
    if sum(map(bool, (connection, client, netns, pid))) != 1:
        raise click.UsageError("name one: a connection id, --client, --netns or --pid")
    request = control_pb2.DisconnectRequest(connection=connection, client=client, netns=netns, pid=pid or 0)
    run(control.steps(context, api.DISCONNECT, request))
