"""``nsm connect`` and ``nsm disconnect``."""

from __future__ import annotations

import json

import click

from nsmesh.api import control_pb2
from nsmesh.cli import control
from nsmesh.cli.context import Context, run
from nsmesh.model import control as api


def _one_place(netns: str, pid: int) -> None:
    if bool(netns) == bool(pid):
        raise click.UsageError("say where the wire shall end: --netns NAME, or --pid PID (one of them)")


@click.command()
@click.argument("url")
@click.option("--netns", default="", help="Network namespace: a name of `ip netns`, or a path.")
@click.option("--pid", type=click.IntRange(min=1), default=None, help="A process in the namespace.")
@click.option("--name", default="", help="Name of the client; default: made from namespace or pid.")
@click.option("-o", "--output", "style", type=click.Choice(["text", "json"]), default="text")
@click.pass_obj
def connect(context: Context, url: str, netns: str, pid: int | None, name: str, style: str) -> None:
    """Wire whatever already runs on this host to a service.

    URL is kernel://SERVICE/INTERFACE?label=value, for example:
    nsm connect kernel://secure-intranet-connectivity/nsm-1?app=web --pid 4711
    """
    _one_place(netns, pid or 0)
    request = control_pb2.ConnectRequest(url=url, netns=netns, pid=pid or 0, client=name)
    quiet = Context(context.mesh, context.run_dir, context.state_dir, context.verbose, quiet=True)
    facts = run(control.steps(quiet if style == "json" else context, api.CONNECT, request))
    if style == "json" and facts:
        click.echo(json.dumps(facts[-1], indent=2, ensure_ascii=False))


@click.command()
@click.argument("connection", required=False, default="")
@click.option("--client", default="", help="All connections of a client.")
@click.option("--netns", default="", help="All connections into a network namespace.")
@click.option("--pid", type=click.IntRange(min=1), default=None, help="All connections of a process.")
@click.pass_obj
def disconnect(context: Context, connection: str, client: str, netns: str, pid: int | None) -> None:
    """Take wires away: by connection id, client, namespace or process."""
    if sum(map(bool, (connection, client, netns, pid))) != 1:
        raise click.UsageError("name one: a connection id, --client, --netns or --pid")
    request = control_pb2.DisconnectRequest(connection=connection, client=client, netns=netns, pid=pid or 0)
    run(control.steps(context, api.DISCONNECT, request))
