"""``nsm join``, ``leave``, ``token``, ``nodes`` and ``node``: meshes on several hosts."""

from __future__ import annotations

import sys
from typing import Any

import click

from nsmesh.api import control_pb2
from nsmesh.cli import control, forwarder_options, output
from nsmesh.cli.context import Context, require_root, run
from nsmesh.cli.mesh import end, start
from nsmesh.cli.objects import COLUMNS
from nsmesh.cli.quantities import seconds
from nsmesh.core.clock import SystemClock
from nsmesh.core.errors import Conflict, MeshError, NotFound
from nsmesh.model import control as api
from nsmesh.security.join_token import JoinToken
from nsmesh.standalone.joining import asking, record
from nsmesh.standalone.joining.place import Address, Place, node_name, own_address, parse_address
from nsmesh.standalone.lock import holder
from nsmesh.standalone.paths import MeshPaths


@click.command(
    epilog="\b\nExample:\n  nsm join 10.0.0.1 --token nsm1.9f86d081.Xq...\n",
)
@click.argument("address", metavar="IP[:PORT]")
@click.option(
    "--token", required=True, help="What nsm token create printed on the first host; - reads it from stdin."
)
@click.option("--name", default="", help="Name of this host's node; default: the host name.")
@click.option(
    "--address",
    "own",
    metavar="IP",
    default="",
    help="Where other hosts reach this one; default: the address from which it reaches the first.",
)
@forwarder_options.forwarder_options
@click.pass_obj
def join(context: Context, /, address: str, token: str, name: str, own: str, **forwarder: Any) -> None:
    """Make this host a node of the mesh that another host has, and bring it up here.

    The first host must be up with --listen. Its certificate is checked against the token before anything is
    said; the token itself is never sent. Later nsm up brings this host back without a token, and with the
    same options for forwarders, which each host has of its own; it takes them as well, to change them.
    """
    require_root("a mesh")
    first = parse_address(address)
    secret = JoinToken.parse(sys.stdin.readline() if token == "-" else token)  # noqa: S105 - where it is read
    paths = context.paths
    told = forwarder_options.given(forwarder)
    _check_free(paths)
    forwarder_options.wishes(paths, told, among_hosts=True)
    place = Place(node_name(name), _own(own, first))
    paths.make()

    async def work() -> None:
        found = await asking.join(paths.mesh, paths.trust_domain, first, place, secret, SystemClock())
        found.save(paths.membership)
        context.say(
            f"{place.name} is a node of the mesh {paths.mesh}, which {found.first_name} has", fg="green"
        )
        await start(context, forwarder_options.arguments(told))

    run(work())


def _own(own: str, first: Address) -> Address:
    ip = parse_address(own).ip if own else own_address(first)
    return Address(ip, first.port)


def _check_free(paths: MeshPaths) -> None:
    """Raise Conflict where this host has a mesh of that name, its own or one that it joined."""
    known = record.load(paths.membership)
    if known is not None and not known.removed:
        raise Conflict(
            f"this host is the node {known.name} of the mesh {paths.mesh} already",
            remedy=f"bring it up with: nsm up; or leave first: nsm --mesh {paths.mesh} leave",
        )
    found = holder(paths.lock)
    if found is not None:
        raise Conflict(
            f"there is a mesh {paths.mesh} on this host already, and it is up (pid {found.pid})",
            remedy=f"take it down, and forget it: nsm --mesh {paths.mesh} down --purge",
        )
    if known is None and (paths.state / "ca").exists():
        raise Conflict(
            f"there is a mesh {paths.mesh} of this host's own already, in {paths.state}",
            remedy=f"forget it with all that was applied: nsm --mesh {paths.mesh} down --purge",
        )


@click.command()
@click.pass_obj
def leave(context: Context) -> None:
    """Take this host out of the mesh that it joined, with its wires, endpoints and workloads.

    What was applied here is forgotten. To go down and come back later, use nsm down.
    """
    require_root("a mesh")
    paths = context.paths
    if record.load(paths.membership) is None:
        raise NotFound(
            f"this host has joined no mesh {paths.mesh}",
            remedy="a mesh of its own goes with: nsm down --purge",
        )
    run(end(context))
    say_goodbye(context)
    paths.purge()


def say_goodbye(context: Context) -> None:
    """Tell the first host that this one leaves; where it does not hear that, say what is to be done there."""
    paths = context.paths
    known = record.load(paths.membership)
    if known is None or known.removed:
        return
    try:
        run(asking.leave(known, paths.trust_domain, SystemClock()))
    except MeshError as error:
        context.say(
            f"{known.first_name} could not be told: {error.what}\n"
            f"  -> on it: nsm --mesh {paths.mesh} node remove {known.name}",
            fg="yellow",
            err=True,
        )
    else:
        context.say(f"{known.name} has left the mesh {paths.mesh}")


@click.group()
def token() -> None:
    """Make tokens with which other hosts join."""


@token.command()
@click.option(
    "--ttl",
    metavar="DURATION",
    default="10m",
    callback=seconds,
    help="How long it is good for; 10m by default.",
)
@click.pass_obj
def create(context: Context, *, ttl: float) -> None:
    """Print a token with which one host may join, once."""

    async def work() -> control_pb2.Token:
        async with context.control() as client:
            request = control_pb2.TokenRequest(lifetime=ttl)
            reply = await client.unary(api.CREATE_TOKEN, request.SerializeToString())
            return control_pb2.Token.FromString(reply.message)

    made = run(work())
    click.echo(made.text)
    option = f" --mesh {context.mesh}" if context.mesh else ""
    if not context.quiet:
        click.echo(f"join with: nsm{option} join {made.address} --token TOKEN", err=True)


@click.command()
@click.option(
    "-o", "--output", "style", type=click.Choice(output.FORMATS), default="table", help="How to print."
)
@click.pass_obj
def nodes(context: Context, style: str) -> None:
    """List the nodes of a mesh: nsm get nodes."""
    narrow, more = COLUMNS["nodes"]

    async def work() -> None:
        async with context.control() as client:
            output.show(
                await control.rows(client, "nodes"), (*narrow, *more) if style == "wide" else narrow, style
            )

    run(work())


@click.group()
def node() -> None:
    """Take nodes out of a mesh."""


@node.command()
@click.argument("name")
@click.pass_obj
def remove(context: Context, name: str) -> None:
    """Take out a host that joined: its identity counts no more, and it goes down when it hears of it.

    Called on the first host. The other one may join again with a new token.
    """
    run(control.steps(context, api.REMOVE_NODE, control_pb2.NodeRequest(name=name)))
