"""``nsm chaos``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from nsmesh.cli import output
from nsmesh.cli.context import EXIT_FAILED, Context, require_root, run

COLUMNS = (
    "scenario",
    "repetitions",
    "sent",
    "lost",
    "longest_gap_ms",
    "recovery_p50_ms",
    "recovery_p99_ms",
    "kept",
)


@click.group()
def chaos() -> None:
    """Break parts of a mesh on purpose, and measure what its wires lose and how soon all is well."""


@chaos.command("list")
@click.option("-o", "--output", "style", type=click.Choice(output.FORMATS), default="table")
def list_scenarios(style: str) -> None:
    """List the scenarios: who suffers what, and where."""
    from nsmesh.chaos.scenarios import NAMES  # noqa: PLC0415 - only this command needs it

    rows = [
        {"scenario": name, "where": one.where, "who": list(one.who), "what": one.what}
        for name, one in NAMES.items()
    ]
    output.show(rows, ("scenario", "where", "who", "what"), style)


@chaos.command("run")
@click.argument("scenarios", nargs=-1)
@click.option("--repeat", type=click.IntRange(1, 1000), default=20, help="How often each is done.")
@click.option("--short", is_flag=True, help="A handful, once each.")
@click.option("-o", "--output", "style", type=click.Choice(("table", "json")), default="table")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON here too.")
@click.pass_obj
def run_scenarios(
    context: Context, scenarios: tuple[str, ...], repeat: int, style: str, file: Path | None, *, short: bool
) -> None:
    """Run SCENARIOS (default: all) on meshes of their own; leave with 1 where a promise is not kept."""
    require_root("chaos")
    rows = run(_run(context, scenarios, 1 if short else repeat, short=short))
    text = json.dumps(rows, indent=2, ensure_ascii=False)
    if file is not None:
        file.write_text(text + "\n")
    if style == "json":
        click.echo(text)
    else:
        output.show(rows, COLUMNS, "table")
    if not all(row["kept"] for row in rows):
        sys.exit(EXIT_FAILED)


async def _run(context: Context, names: tuple[str, ...], repeat: int, *, short: bool) -> list[dict[str, Any]]:
    from nsmesh.chaos import running, scenarios  # noqa: PLC0415 - only this command needs it

    rows = []
    async for outcome in running.run(scenarios.chosen(names, short=short), repeat):
        rows.append(outcome.row())
        if context.verbose:
            click.echo(f"{outcome.name}: {len(outcome.recovery)} times", err=True)
    return rows
