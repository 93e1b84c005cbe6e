"""``nsm up`` and ``down``."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import click

from nsmesh.api import control_pb2
from nsmesh.cli import already_up, control, forwarder_options
from nsmesh.cli.context import Context, require_root, run
from nsmesh.cli.quantities import percent, seconds
from nsmesh.core.errors import Invalid, MeshError, Refused
from nsmesh.model import control as api
from nsmesh.model.duration import format_duration
from nsmesh.standalone import launch
from nsmesh.standalone.lock import holder

if TYPE_CHECKING:
    from nsmesh.standalone.forwarder_wishes import ForwarderWishes
    from nsmesh.standalone.joining.place import Place
    from nsmesh.standalone.nodes import Conditions

RESTORED = 30.0
"""Seconds that ``nsm up`` waits for what an earlier run had."""


@click.command()
@click.option("--foreground", is_flag=True, help="Stay in the foreground; Ctrl-C takes the mesh down.")
@click.option(
    "--separate", is_flag=True, help="Run registry, manager and forwarder as processes of their own."
)
@click.option(
    "--nodes",
    type=click.IntRange(1, 50),
    default=1,
    help="Play that many nodes: node1, node2, ..., each a network namespace with roles of its own.",
)
@click.option(
    "--underlay-mtu",
    type=click.IntRange(1280, 65535),
    default=1500,
    help="MTU in bytes of what joins the nodes.",
)
@click.option(
    "--latency",
    metavar="DURATION",
    default="0s",
    callback=seconds,
    help="Time from one node to another, such as 2ms (tc netem).",
)
@click.option(
    "--loss",
    metavar="PERCENT",
    default="0%",
    callback=percent,
    help="Packets lost between nodes, such as 0.1% (tc netem).",
)
@click.option(
    "--listen",
    metavar="IP[:PORT]",
    default="",
    help="Let other hosts join at this address (port 5000; the next two are used as well).",
)
@click.option("--name", default="", help="Name of this host's node, with --listen; default: the host name.")
@forwarder_options.forwarder_options
@click.option("-f", "--file", "files", multiple=True, help="Apply these manifests once it is up.")
@click.pass_obj
def up(
    context: Context,
    /,
    files: tuple[str, ...],
    *,
    foreground: bool,
    separate: bool,
    listen: str,
    name: str,
    **underlay: Any,
) -> None:
    """Bring a mesh up on this host; nothing happens if it is up already.

    What was applied before the mesh went down, or died, is put up again. With several nodes, workloads and
    endpoints say theirs in spec.node, and wires cross from one to another. With --listen, other hosts become
    nodes by nsm join; a mesh that let them, and a host that joined, come back as such without being told,
    and with the options for forwarders that they were told last: each changes what it speaks of.
    """
    require_root("a mesh")
    if underlay["nodes"] == 1 and any(_given(name) for name in ("underlay_mtu", "latency", "loss")):
        raise click.UsageError("--underlay-mtu, --latency and --loss are for several nodes: add --nodes 2")
    if foreground and files:
        raise click.UsageError("--foreground and -f exclude each other: apply from another terminal")
    manifests = control.read_manifests(files)
    paths = context.paths
    told = forwarder_options.given(underlay)
    place = _place(context, listen, name, apart=separate or underlay["nodes"] > 1)
    among_hosts = place is not None or paths.listening.exists() or paths.membership.exists()
    wishes = forwarder_options.wishes(paths, told, among_hosts=among_hosts)
    conditions = _conditions(underlay, wishes)
    paths.make()
    if foreground:
        from nsmesh.cli import fork_server  # noqa: PLC0415 - the whole mesh, for this one command
        from nsmesh.core import garbage  # noqa: PLC0415 - likewise
        from nsmesh.standalone import daemon, outliving, succession  # noqa: PLC0415 - likewise
        from nsmesh.standalone.forking import forked  # noqa: PLC0415 - likewise

        given = outliving.given(os.environ)
        predecessor = succession.begin(os.environ)
        os.environ.update(wishes.environment())
        level = ("INFO", "DEBUG", "TRACE")[min(context.verbose, 2)]
        garbage.imported()
        title = f"nsm --mesh {paths.mesh} --run-dir {paths.run} fork-server"
        forks = given or forked(lambda channel: fork_server.work(channel, title))
        all_wishes = daemon.Wishes(separate, conditions, place, wishes)
        daemon.run(paths, all_wishes, "WARN" if context.quiet else level, forks, predecessor)
        return
    found = holder(paths.lock)
    if found is not None and found.mesh == paths.mesh:
        if place is not None:
            already_up.check_listening(paths, place)
        if _given("nodes"):
            run(already_up.check_nodes(context, underlay["nodes"]))
        forwarder_options.check_up(paths, told)
        context.say(f"mesh {paths.mesh} is up already (pid {found.pid})")
    else:
        options = [*(["--separate"] if separate else []), *_arguments(underlay)]
        options += forwarder_options.arguments(told)
        if place is not None:
            options += [f"--listen={place.address}", f"--name={place.name}"]
        run(start(context, options))
        if place is not None:
            context.say(f"other hosts join at {place.address}, with a token each: nsm token create")
    if manifests:
        request = control_pb2.ApplyRequest(manifests=manifests, wait=True)
        run(control.steps(context, api.APPLY, request))


def _conditions(underlay: dict[str, Any], wishes: ForwarderWishes) -> Conditions:
    """Return what joins the nodes, as the options say. Raises MeshError where this host cannot play it."""
    from nsmesh.standalone.nodes import Conditions  # noqa: PLC0415 - other commands can do without

    found = Conditions(
        underlay["nodes"],
        underlay["underlay_mtu"],
        underlay["latency"],
        underlay["loss"],
        wishes.forwarders,
        wishes.switch,
    )
    if found.switch and found.nodes > 1:
        raise Invalid(
            f"the Open vSwitch at {found.switch} is this host's, and no switch of {found.nodes} nodes",
            remedy="leave --nodes, or --switch; on several hosts use nsm join",
        )
    if found.latency or found.loss:
        from nsmesh.standalone.underlay import check_conditions  # noqa: PLC0415 - seldom

        check_conditions(found)
    return found


def _place(context: Context, listen: str, name: str, *, apart: bool) -> Place | None:
    """Return where other hosts may join, as the options say; None: as before. Raises MeshError."""
    if name and not listen:
        raise click.UsageError("--name is for a host that others join: add --listen IP")
    paths = context.paths
    if apart and (listen or paths.listening.exists() or paths.membership.exists()):
        raise Refused(
            "with other hosts in the mesh, this host is one node, and its roles are one process",
            remedy="leave out --nodes and --separate, or take another mesh for them: --mesh NAME",
        )
    if paths.membership.exists():
        from nsmesh.standalone.joining.record import check_up  # noqa: PLC0415 - seldom

        check_up(paths.membership, listens=bool(listen))
    if not listen:
        return None
    from nsmesh.standalone.joining.place import Place, node_name, parse_address  # noqa: PLC0415 - seldom

    return Place(node_name(name), parse_address(listen))


def _given(name: str) -> bool:
    """Say whether an option stands on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def _arguments(underlay: dict[str, Any]) -> list[str]:
    """Return the options that say the same to the daemon."""
    if underlay["nodes"] == 1:
        return []
    return [
        f"--nodes={underlay['nodes']}",
        f"--underlay-mtu={underlay['underlay_mtu']}",
        f"--latency={format_duration(underlay['latency'])}",
        f"--loss={underlay['loss']:g}%",
    ]


async def start(context: Context, options: list[str]) -> None:
    """Start the daemon of a mesh with these options of ``nsm up``, and say what it found."""
    paths = context.paths
    arguments = ["--mesh", paths.mesh, "--run-dir", str(paths.run), "--state-dir", str(paths.state)]
    arguments += ["-v"] * context.verbose + ["up", "--foreground", *options]
    pid = await launch.launch(paths, arguments)
    context.say(f"mesh {paths.mesh} is up (pid {pid}, {paths.run})", fg="green")
    await restored(context)


async def restored(context: Context) -> None:
    """Wait until a daemon that has started has what an earlier one had, and say what it found."""
    end = asyncio.get_running_loop().time() + RESTORED
    async with context.control() as client:
        while (await control.status(client))["state"] == "restoring":
            if asyncio.get_running_loop().time() > end:
                context.say("what was applied before is still being put up", fg="yellow")
                return
            await asyncio.sleep(0.05)
        for event in await control.rows(client, "events"):
            if event["failed"] or event["text"].startswith(("removed", "restored")):
                context.say(event["text"], fg="red" if event["failed"] else "yellow")


@click.command()
@click.option("--purge", is_flag=True, help="Forget registered services and applied documents too.")
@click.pass_obj
def down(context: Context, *, purge: bool) -> None:
    """Take a mesh down: its wires, endpoints, workloads, namespaces and sockets.

    Of a mesh that has died, what it left is taken away.
    """
    require_root("a mesh")
    paths = context.paths
    was_up = run(end(context))
    if purge:
        _forget_membership(context)
        paths.purge()
    context.say(f"mesh {paths.mesh} is down" if was_up else f"mesh {paths.mesh} was not up")


async def end(context: Context) -> bool:
    """End the daemon of a mesh, and clean up after it; say whether there was one."""
    from nsmesh.standalone import leftovers  # noqa: PLC0415 - half of the mesh, which ``nsm up`` can do without

    paths = context.paths
    found = holder(paths.lock)
    if found is not None and found.mesh == paths.mesh:
        patience = 30.0
        try:
            await control.steps(context, api.DOWN, control_pb2.Empty())
        except MeshError as error:
            context.say(f"the daemon did not end well: {error.what}", fg="yellow", err=True)
            patience = 5.0
        await launch.wait_gone(paths, found.pid, patience)
    for item in await leftovers.clear(paths):
        context.say(f"removed what a dead mesh had left: {item}", fg="yellow")
    return found is not None


def _forget_membership(context: Context) -> None:
    """Leave the mesh that this host joined, before its identity there is gone."""
    if context.paths.membership.exists():
        from nsmesh.cli.hosts import say_goodbye  # noqa: PLC0415 - seldom

        say_goodbye(context)
