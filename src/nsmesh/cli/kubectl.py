"""``kubectl nsm``: what ``nsm`` shows of a mesh on this host, of one in a Kubernetes cluster."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nsmesh.cli import output
from nsmesh.cli.context import command_line, run
from nsmesh.core.errors import Invalid, NotFound, TimedOut, Unavailable

if TYPE_CHECKING:
    from nsmesh.kubernetes.client import Api, Object

T = TypeVar("T")

KINDS = ("services", "endpoints", "connections", "forwarders")
_SINGULAR = {
    **{kind.removesuffix("s"): kind for kind in KINDS},
    "netsvc": "services",
    "nse": "endpoints",
    "nsc": "connections",
    "wires": "connections",
}
COLUMNS = {
    "services": (("name", "namespace", "payload", "matches", "endpoints"), ()),
    "endpoints": (("name", "namespace", "services", "node", "expires"), ("labels", "url")),
    "connections": (
        ("client", "service", "endpoint", "interface", "addresses", "state", "age", "reason"),
        ("mechanism", "mtu", "path", "name"),
    ),
    "forwarders": (("name", "node", "labels", "expires"), ("namespace", "url")),
}
_MARKS = {"ok": ("ok", "green"), "no": ("no", "red"), "?": ("? ", "yellow")}


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
)
@click.option("--kubeconfig", default="", help="File with the cluster's address (default: as kubectl).")
@click.option("--context", "name", default="", help="Context in it (default: the current one).")
@click.pass_context
def cli(ctx: click.Context, kubeconfig: str, name: str) -> None:
    """Show a Network Service Mesh in a Kubernetes cluster, and say why a wire is not there.

    The API server must hold what the mesh knows: services and endpoints where the registry is registry-k8s,
    wires where managers have NSM_MIRROR_CONNECTIONS.
    """
    if kubeconfig:
        os.environ["KUBECONFIG"] = kubeconfig
    ctx.obj = name


def _namespaced(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Wires of all.")(
        command
    )
    return click.option("-n", "--namespace", default="", help="Namespace (default: the context's).")(command)


def _asked(context: str, work: Callable[[Api], Awaitable[T]]) -> T:
    """Run ``work`` with the cluster's API server; raises MeshError that says what to do."""
    from nsmesh.kubernetes.client import configuration, connected  # noqa: PLC0415 - an extra

    async def main() -> T:
        async with connected(configuration(context)) as api:
            return await work(api)

    try:
        return run(main())
    except (Unavailable, TimedOut) as error:
        raise Unavailable(
            error.what, remedy="see whether kubectl get nodes answers; else --kubeconfig or --context"
        ) from error


def _kind(what: str) -> str:
    kind = _SINGULAR.get(what.lower(), what.lower())
    if kind not in KINDS:
        raise Invalid(f"there is nothing called '{what}'", remedy=f"known: {', '.join(KINDS)}")
    return kind


async def _view(api: Api, namespace: str, *, everywhere: bool) -> Any:
    from nsmesh.kubernetes.cluster_view import ClusterView  # noqa: PLC0415 - an extra

    view = await ClusterView.read(api, "" if everywhere else namespace or api.namespace)
    for sentence in view.broken:
        click.echo(f"warning: {sentence}", err=True)
    return view


@cli.command(
    "get", epilog="\b\nExamples:\n  kubectl nsm get connections -A -o wide\n  kubectl nsm get services"
)
@click.argument("what", metavar="KIND")
@click.argument("name", required=False, default="")
@_namespaced
@click.option("-o", "--output", "style", type=click.Choice(output.FORMATS), default="table")
@click.pass_obj
def get(context: str, what: str, name: str, namespace: str, style: str, *, everywhere: bool) -> None:
    """List services, endpoints, connections or forwarders."""
    kind = _kind(what)
    view = _asked(context, lambda api: _view(api, namespace, everywhere=everywhere))
    rows = [row for row in view.rows(kind) if not name or name in {row["name"], row.get("client")}]
    if name and not rows:
        raise NotFound(f"there is no {kind.removesuffix('s')} {name}", remedy=f"kubectl nsm get {kind} -A")
    if not rows and style in {"table", "wide"}:
        click.echo(f"no {kind}", err=True)
    first, more = COLUMNS[kind]
    leading = ("namespace",) if kind == "connections" and everywhere else ()
    output.show(rows, (*leading, *first, *(more if style == "wide" else ())), style)


@cli.command()
@click.argument("what", metavar="KIND")
@click.argument("name")
@_namespaced
@click.pass_obj
def describe(context: str, what: str, name: str, namespace: str, *, everywhere: bool) -> None:
    """Show all that is known of one service, endpoint, connection or forwarder, as YAML."""
    kind = _kind(what)
    view = _asked(context, lambda api: _view(api, namespace, everywhere=everywhere))
    rows = [row for row in view.rows(kind) if name in {row["name"], row.get("client")}]
    if not rows:
        raise NotFound(f"there is no {kind.removesuffix('s')} {name}", remedy=f"kubectl nsm get {kind} -A")
    if kind == "services":
        from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 - one of many paths

        rows = [{**row, "rules": MessageToDict(view.services[name]).get("matches", [])} for row in rows]
    click.echo(output.as_yaml(rows[0] if len(rows) == 1 else rows), nl=False)


@cli.command(epilog="\b\nExample:\n  kubectl nsm explain web-5d8f7 -n shop")
@click.argument("pod")
@click.option("-n", "--namespace", default="", help="Namespace (default: the context's).")
@click.pass_obj
def explain(context: str, pod: str, namespace: str) -> None:
    """Say why a pod has its wires, or why not: what it asks for, who could serve it, what was refused.

    Exit code 0 where all its wires are up, else 1.
    """
    from nsmesh.kubernetes.client import collection  # noqa: PLC0415 - an extra
    from nsmesh.kubernetes.explaining import BAD, explained  # noqa: PLC0415 - likewise

    async def work(api: Api) -> tuple[Object, Object, Any]:
        where = namespace or api.namespace
        try:
            found = await api.call("GET", f"{collection('v1', 'pods', where)}/{pod}")
        except NotFound:
            raise NotFound(f"there is no pod {where}/{pod}", remedy="name its namespace with -n") from None
        of = await api.call("GET", f"{collection('v1', 'namespaces')}/{where}")
        return found, of, await _view(api, where, everywhere=False)

    steps = list(explained(*_asked(context, work)))
    for step in steps:
        mark, colour = _MARKS[step.verdict]
        click.echo(f"{click.style(mark, fg=colour)}  {step.text}")
        if step.remedy:
            click.echo(f"      -> {step.remedy}")
    if any(step.verdict == BAD for step in steps):
        sys.exit(1)


@cli.command()
@click.pass_obj
def status(context: str) -> None:
    """Show how the mesh of the cluster is: what is registered, and the wires by state."""
    view = _asked(context, lambda api: _view(api, "", everywhere=True))
    rows = view.rows("connections")
    states = Counter(str(row["state"]).lower() or "unknown" for row in rows)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none is shown"
    click.echo(f"services: {len(view.services)}, endpoints: {len(view.endpoints)}, wires: {counts}")
    forwarders = view.rows("forwarders")
    if forwarders:
        click.echo(
            f"forwarders: {len(forwarders)}, on nodes {', '.join(sorted({r['node'] for r in forwarders}))}"
        )
    else:
        click.echo("forwarders: none in the API server (a registry in memory keeps them to itself)")
    bad = [row for row in rows if row["state"] != "Up"]
    if bad:
        click.secho("\nwires that are not up", bold=True)
        for line in output.table(bad, ("namespace", "client", "service", "state", "reason")).splitlines():
            click.echo("  " + output.coloured(line))


def main(arguments: list[str] | None = None) -> Any:
    """Run the plug-in; every error is one sentence on stderr and an exit code."""
    return command_line(cli, "kubectl nsm", arguments)


if __name__ == "__main__":
    main()
