"""``nsm apply``, ``delete``, ``get`` and ``describe``."""

from __future__ import annotations

import json
from typing import Any

import click

from nsmesh.api import control_pb2
from nsmesh.cli import completing, control, output
from nsmesh.cli.context import Context, run, tell
from nsmesh.core.errors import Invalid, MeshError, NotFound, Refused
from nsmesh.model import control as api

_ALIASES = {
    "service": "services",
    "networkservice": "services",
    "networkservices": "services",
    "netsvc": "services",
    "endpoint": "endpoints",
    "networkserviceendpoint": "endpoints",
    "networkserviceendpoints": "endpoints",
    "nse": "endpoints",
    "nses": "endpoints",
    "client": "clients",
    "workload": "clients",
    "workloads": "clients",
    "nsc": "clients",
    "connection": "connections",
    "wire": "connections",
    "wires": "connections",
    "manager": "managers",
    "node": "nodes",
    "host": "nodes",
    "hosts": "nodes",
    "forwarder": "forwarders",
    "link": "links",
    "event": "events",
}

COLUMNS = {
    "services": (("name", "payload", "matches", "endpoints"), ("rules",)),
    "endpoints": (
        ("name", "services", "labels", "state", "pid"),
        ("type", "node", "url", "netns", "expires"),
    ),
    "clients": (("name", "state", "wires", "pid", "netns"), ("node", "asks", "command", "message")),
    "connections": (
        ("client", "service", "endpoint", "interface", "address", "state", "age"),
        ("id", "mechanism", "payload", "mtu", "peer_address", "nodes", "path"),
    ),
    "managers": (("name", "state", "url", "connections"), ("node", "pid")),
    "forwarders": (
        ("name", "state", "labels", "mechanisms", "wires"),
        ("node", "url", "pid", "lacks", "underlay"),
    ),
    "nodes": (("name", "state", "address", "manager", "seen"), ("version", "here", "first", "joined")),
    "links": (("name", "a", "b", "state"), ("mtu",)),
    "events": (("time", "kind", "text"), ("connection",)),
}
"""Columns of the table, and those that ``-o wide`` adds."""


def kind_of(what: str) -> str:
    """Return the plural kind for any of its spellings; raises Invalid with the nearest one."""
    import difflib  # noqa: PLC0415 - only for mistakes

    folded = what.lower()
    folded = _ALIASES.get(folded, folded)
    if folded in api.KINDS:
        return folded
    near = difflib.get_close_matches(folded, [*api.KINDS, *_ALIASES], n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise Invalid(f"there is nothing called '{what}'", remedy=f"{hint}known: {', '.join(api.KINDS)}")


@click.command(
    epilog="\b\nExamples:\n  nsm apply -f examples/secure-intranet\n  nsm apply -f - < service.yaml\n",
)
@click.option("-f", "--file", "files", multiple=True, required=True, help="File, directory, or - for stdin.")
@click.option("--no-wait", is_flag=True, help="Do not wait until workloads have their wires.")
@click.pass_obj
def apply(context: Context, files: tuple[str, ...], *, no_wait: bool) -> None:
    """Make the mesh as YAML manifests say: services, endpoints, workloads, links.

    All files, and all .yaml, .yml and .json files of a directory, are applied as one. What is the same is
    left alone; what changed is made anew. Nothing is changed when a mistake can be seen beforehand.
    """
    request = control_pb2.ApplyRequest(manifests=control.read_manifests(files), wait=not no_wait)
    run(control.steps(context, api.APPLY, request))


@click.command(
    epilog="\b\nExamples:\n  nsm delete endpoint firewall\n  nsm delete -f examples/secure-intranet\n",
)
@click.option("-f", "--file", "files", multiple=True, help="Delete what these files describe.")
@click.argument("what", metavar="[KIND]", required=False, shell_complete=completing.kinds)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=completing.names)
@click.pass_obj
def delete(context: Context, files: tuple[str, ...], what: str | None, names: tuple[str, ...]) -> None:
    """Delete by kind and name, or all that files describe.

    Links of a workload or endpoint that is deleted go down, and come up with its next version.
    """
    if not files and not (what and names):
        raise click.UsageError("give -f FILE, or a kind and names: nsm delete endpoint firewall")
    requests = []
    if files:
        requests.append(control_pb2.DeleteRequest(manifests=control.read_manifests(files)))
    if what:
        requests += [control_pb2.DeleteRequest(kind=kind_of(what), name=name) for name in names]

    async def work() -> None:
        failures: list[MeshError] = []
        for request in requests:
            try:
                await control.steps(context, api.DELETE, request)
            except Refused as error:
                failures.append(error)
        for failure in failures[:-1]:
            tell(failure)
        if failures:
            raise failures[-1]

    run(work())


@click.command()
@click.argument("what", metavar="KIND", shell_complete=completing.kinds)
@click.argument("name", required=False, default="", shell_complete=completing.names)
@click.option(
    "-o", "--output", "style", type=click.Choice(output.FORMATS), default="table", help="How to print."
)
@click.option("-w", "--watch", is_flag=True, help="Then print each change as it happens.")
@click.pass_obj
def get(context: Context, what: str, name: str, style: str, *, watch: bool) -> None:
    """List services, endpoints, clients, connections, managers, forwarders, nodes, links or events.

    For events, NAME is a connection. The fields of -o json and yaml: docs/reference/json.md.
    """
    kind = kind_of(what)
    narrow, more = COLUMNS[kind]
    columns = (*narrow, *more) if style == "wide" else narrow

    async def listing() -> None:
        async with context.control() as client:
            found = await control.rows(client, kind, name=name)
        if name and not found:
            raise NotFound(f"there is no {kind[:-1]} called {name}", remedy=f"list them with: nsm get {kind}")
        if not found and style in {"table", "wide"}:
            click.echo(f"no {kind}", err=True)
        output.show(found, columns, style)

    async def watching() -> None:
        async with context.control() as client:
            seen: list[dict[str, Any]] = []
            synced = False
            async for item in control.items(client, kind, name=name, watch=True):
                if item.synced:
                    synced = True
                    _first(seen, columns, style)
                elif not synced:
                    seen.append(json.loads(item.json))
                else:
                    _change(json.loads(item.json), columns, style, deleted=item.deleted)

    run(watching() if watch else listing())


def _first(rows: list[dict[str, Any]], columns: tuple[str, ...], style: str) -> None:
    if style in {"table", "wide"}:
        click.echo(output.table(rows, columns))
        return
    for row in rows:
        _change(row, columns, style, deleted=False)


def _change(row: dict[str, Any], columns: tuple[str, ...], style: str, *, deleted: bool) -> None:
    """Print one change: a table line, one JSON line, or one YAML document."""
    if style == "json":
        click.echo(json.dumps({"deleted": deleted, "object": row}, ensure_ascii=False))
    elif style == "yaml":
        click.echo("---\n" + output.as_yaml({"deleted": deleted, "object": row}), nl=False)
    else:
        line = output.table([row], columns, header=False)
        click.echo(f"{line}  (deleted)" if deleted else line)


@click.command()
@click.argument("what", metavar="KIND", shell_complete=completing.kinds)
@click.argument("name", shell_complete=completing.names)
@click.pass_obj
def describe(context: Context, what: str, name: str) -> None:
    """Show all that is known of one object; for a connection, every hop of its path."""
    kind = kind_of(what)

    async def work() -> list[dict[str, Any]]:
        async with context.control() as client:
            return await control.rows(client, kind, name=name)

    found = run(work())
    if not found:
        raise NotFound(f"there is no {kind[:-1]} called {name}", remedy=f"list them with: nsm get {kind}")
    for row in found:
        _describe({**row, **row.pop("status", {})})


def _describe(row: dict[str, Any]) -> None:
    width = max(len(key) for key in row) + 2
    for key, value in row.items():
        title = f"{key.replace('_', ' ')}:".ljust(width)
        block = _block(value)
        if block is None:
            click.echo(f"{title} {output.cell(value)}")
            continue
        click.echo(title.rstrip())
        for line in block.splitlines():
            click.echo(f"  {line}")


def _block(value: Any) -> str | None:
    """Return a value that needs lines of its own, or None."""
    if isinstance(value, dict) and any(isinstance(item, dict | list) for item in value.values()):
        return output.as_yaml(value)
    if not isinstance(value, list) or not value:
        return None
    if isinstance(value[0], dict):
        return output.table(value, list(dict.fromkeys(name for item in value for name in item)))
    return "\n".join(output.cell(item) for item in value) if len(value) > 1 else None
