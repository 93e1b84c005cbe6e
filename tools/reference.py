# ruff: noqa: INP001 - a script, in no package
"""Writes what follows from the code: docs/reference/cli.md, settings.md, and the chains in architecture.md.

usage: python tools/reference.py [--check]
With --check nothing is written; exit code 1 and a diff say what is out of date.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import chain_lists
import click

import nsmesh
from nsmesh.chains import (
    settings,
    settings_common,
    settings_kubernetes,
    settings_node_agent,
    settings_nsc,
    settings_ovs,
    variables,
)
from nsmesh.cli.main import cli
from nsmesh.core.metrics import DECLARED
from nsmesh.model.settings import Setting, describe

DOCS = Path(__file__).parents[1] / "docs"
NOTE = "<!-- Written by tools/reference.py from the code. -->"

DAEMONS = {
    "nsm run nsmgr": settings.NsmgrSettings,
    "nsm run forwarder": settings.ForwarderSettings,
    "nsm run forwarder-ovs": settings_ovs.OvsForwarderSettings,
    "nsm run registry-memory, nsm run registry-sqlite": settings.RegistrySettings,
    "nsm run registry-k8s": settings.KubernetesRegistrySettings,
    "nsm run exclude-prefixes-k8s": settings_kubernetes.ExcludePrefixesSettings,
    "nsm run admission-webhook-k8s": settings_kubernetes.AdmissionWebhookSettings,
    "nsm run node-cleanup": settings_kubernetes.NodeCleanupSettings,
    "nsm run node-agent-k8s": settings_node_agent.NodeAgentSettings,
    "nsm run nsc": settings_nsc.NscSettings,
    "nsm run nsc-init": settings_nsc.NscInitSettings,
    "nsm run nse": settings.NseSettings,
}
CLI_INTRODUCTION = """\
`nsm` runs a mesh on this host and shows it. Results go to standard output, all else to standard error. Every
error is one sentence with a remedy below it."""
METRICS_INTRODUCTION = """\
What each process serves at `/metrics` where `PROMETHEUS=true`: see [observability](../observability.md).
Names say which element counts: `nsm_<element>_<what>`. Latencies are histograms, in seconds. At the address
of a mesh on one host every sample has the label `process`: `daemon`, or the name of a role or an endpoint."""
SETTINGS_INTRODUCTION = """\
Each role is a process that reads its settings from environment variables (`nsm run ROLE --help` shows them
too). Names and defaults are those of NSM, where NSM has them. All mistakes are told at once. Kinds:

| kind | written as |
|---|---|
| text | itself |
| number | a whole number |
| true or false | `true`, `false`, `1`, `0` |
| duration | Go syntax: `750ms`, `10m`, `1h30m` |
| list | `a,b` |
| map | `key:value,key2:value2` |"""
SEE = {
    "nse": "Settings: [settings](settings.md). Options of each type: [endpoints](endpoints/README.md).",
    "vpn-site": "Settings: [vpn-gateway](endpoints/vpn-gateway.md#the-other-end-vpn-site).",
}
NSE_NOTE = """\
The options of each type of endpoint are variables as well: see [endpoints](endpoints/README.md)."""
UNSERVED_INTRODUCTION = """\
These variables of NSM ask for something that is not served here. A role that finds one of them set says so in
one line when it starts, and goes on; where something else than what was asked for would happen, it does not
start. Unknown variables that begin with `NSM_` are told with the nearest known one."""


def cli_page() -> str:
    """Return the page of the command line."""
    parts = [NOTE, "# Command line", CLI_INTRODUCTION]
    context = click.Context(cli, info_name="nsm")
    parts += _command(cli, context)
    for path in _paths(cli, context):
        parts += [f"## {path.command_path}", *_command(path.command, path)]
    return "\n\n".join(parts) + "\n"


def _paths(group: click.Group, context: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command below ``group``, in the order in which they are listed."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=context)
        yield below
        if isinstance(command, click.Group):
            yield from _paths(command, below)


def _command(command: click.Command, context: click.Context) -> list[str]:
    words = [context.command_path, "[OPTIONS]"]
    words += [_argument(item) for item in command.params if isinstance(item, click.Argument)]
    if isinstance(command, click.Group):
        words += ["COMMAND", "..."]
    parts = [f"    {' '.join(words)}", *map(_paragraph, inspect.cleandoc(command.help or "").split("\n\n"))]
    rows = [_option(item) for item in command.params if isinstance(item, click.Option) and not item.hidden]
    if rows:
        parts.append(_table(("option", "meaning"), rows))
    if isinstance(command, click.Group):
        below = [command.get_command(context, name) for name in command.list_commands(context)]
        rows = [(_linked(context, item.name or ""), _first_line(item)) for item in below if item is not None]
        parts.append(_table(("command", "does"), rows))
    if context.parent is not None and context.parent.info_name == "run":  # its epilog has a page of its own
        parts.append(SEE.get(command.name or "", "Settings: [settings](settings.md)."))
    elif command.epilog:
        parts.append(_paragraph(inspect.cleandoc(command.epilog)))
    return parts


def _paragraph(text: str) -> str:
    """Return a paragraph of a help; lines that click leaves as they are become a block."""
    if not text.startswith("\b"):
        return text
    lines = text.removeprefix("\b").strip("\n").splitlines()
    title = [lines.pop(0), ""] if lines[0].endswith(":") and lines[1:2] and lines[1].startswith(" ") else []
    return "\n".join([*title, "```text", *textwrap.dedent("\n".join(lines)).splitlines(), "```"])


def _linked(context: click.Context, name: str) -> str:
    path = f"{context.command_path} {name}"
    return f"[`{name}`](#{path.replace(' ', '-')})"


def _first_line(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " ")


def _argument(argument: click.Argument) -> str:
    name = (argument.name or "").upper()
    if isinstance(argument.type, click.Choice):
        name = "|".join(map(str, argument.type.choices))
    name += "..." if argument.nargs == -1 else ""
    return name if argument.required else f"[{name}]"


def _option(option: click.Option) -> tuple[str, str]:
    kind = ""
    if isinstance(option.type, click.Choice):
        kind = " " + r"\|".join(map(str, option.type.choices))
    elif not option.is_flag and not option.count:
        kind = " NUMBER" if isinstance(option.type, click.IntRange) else " TEXT"
    notes = [option.help or "How to print." if option.name == "style" else option.help or ""]
    if option.multiple or option.count:
        notes.append("May be repeated.")
    if option.required:
        notes.append("Required.")
    return f"`{', '.join([*option.opts, *option.secondary_opts])}{kind}`", " ".join(notes).strip()


def settings_page() -> str:
    """Return the page of the settings."""
    common = {item.variable for item in describe(settings_common.Common)}
    parts = [NOTE, "# Settings", SETTINGS_INTRODUCTION]
    parts += ["## Every role", _settings(describe(settings_common.Common))]
    for title, cls in DAEMONS.items():
        own = [item for item in describe(cls) if item.variable not in common]
        parts += [f"## {title}", inspect.cleandoc(cls.__doc__ or ""), _settings(own)]
    parts += [NSE_NOTE, *_nse_defaults(), "## Not served", UNSERVED_INTRODUCTION, _unserved()]
    return "\n\n".join(parts) + "\n"


def _nse_defaults() -> Iterator[str]:
    plain = {item.variable: item.default for item in describe(settings.NseSettings)}
    for kind, cls in settings.NSE_SETTINGS.items():
        items = describe(cls)
        own = [item for item in items if item.default != plain.get(item.variable, item.default)]
        listed = ", ".join(f"`{item.variable}` is `{item.default}`" for item in own)
        yield f"Defaults of `nsm run nse {kind}`: {listed}."
        if more := [item for item in items if item.variable not in plain]:
            yield f"More of `nsm run nse {kind}`:"
            yield _settings(more)


def _unserved() -> str:
    rows = [
        (title.removeprefix("nsm run ").partition(",")[0], feature)
        for title, cls in DAEMONS.items()
        for feature in variables.UNSERVED[cls.__name__]
        if feature not in variables.EVERYWHERE
    ]
    rows += [("every role", feature) for feature in variables.EVERYWHERE]
    shown = [
        (role, ", ".join(f"`{name}`" for name in one.variables), one.feature + " (refused)" * one.refused)
        for role, one in rows
    ]
    return _table(("role", "variables of NSM", "what is not served"), shown)


def _settings(items: Iterable[Setting]) -> str:
    rows = [(f"`{item.variable}`", item.kind, _default(item), item.help.replace("\n", " ")) for item in items]
    return _table(("variable", "kind", "default", "meaning"), rows)


def _default(item: Setting) -> str:
    if item.kind == "duration" and item.default:
        return f"`{float(item.default.removesuffix('s')):.10g}s`"
    if item.kind == "map":
        pairs = item.default.strip("{}").replace("'", "").replace(": ", ":")
        return f"`{pairs}`" if pairs else "-"
    if item.kind == "true or false":
        return f"`{item.default.lower()}`"
    return f"`{item.default}`" if item.default else "-"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(line)} |".replace("| --- ", "|---").replace("|--- |", "|---|") for line in lines
    )


@dataclasses.dataclass(frozen=True)
class Page:
    """A page, and what it shall say."""

    path: Path
    text: str


def architecture_page() -> str:
    """Return the page on the architecture with the chains of the code; all else stays as it is."""
    begin, end = "<!-- chains: written by tools/reference.py -->", "<!-- end of the chains -->"
    head, _, rest = (DOCS / "architecture.md").read_text().partition(begin)
    return f"{head}{begin}\n\n{chain_lists.listing()}\n\n{end}{rest.partition(end)[2]}"


def metrics_page() -> str:
    """Return the page on metrics: all that any module declares."""
    for module in pkgutil.walk_packages(nsmesh.__path__, "nsmesh."):
        if module.name.count(".") > 1 and not module.name.startswith("nsmesh.api."):
            importlib.import_module(module.name)
    lines = ["| metric | kind | labels | what |", "|---|---|---|---|"]
    for name, metric in sorted(DECLARED.items()):
        suffix = "_total" if metric.kind == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
        lines.append(f"| `{name}{suffix}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join([NOTE, "", "# Metrics", "", METRICS_INTRODUCTION, "", *lines, ""])


def pages() -> list[Page]:
    """Return all pages."""
    return [
        Page(DOCS / "reference" / "cli.md", cli_page()),
        Page(DOCS / "reference" / "settings.md", settings_page()),
        Page(DOCS / "reference" / "metrics.md", metrics_page()),
        Page(DOCS / "architecture.md", architecture_page()),
    ]


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them; return the exit code."""
    stale = 0
    for page in pages():
        old = page.path.read_text() if page.path.exists() else ""
        if old == page.text:
            continue
        if "--check" not in arguments:
            page.path.write_text(page.text)
            continue
        stale = 1
        sys.stdout.writelines(
            difflib.unified_diff(
                old.splitlines(keepends=True), page.text.splitlines(keepends=True), str(page.path), "the code"
            )
        )
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
