"""``nsm chaos``."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsmesh.cli import output
from nsmesh.cli.context import EXIT_FAILED, Context, require_root, run

if TYPE_CHECKING:
    from nsmesh.chaos.scenarios import Wanted

_FILE = click.Path(dir_okay=False, path_type=Path)
SOAKED = ("process", "memory_kib", "descriptors", "threads", "slope_kib_per_minute")
COLUMNS = (
    "scenario",
    "situation",
    "repetitions",
    "sent",
    "lost",
    "longest_gap_ms",
    "recovery_p50_ms",
    "recovery_p99_ms",
    "promised",
    "kept",
)


@click.group()
def chaos() -> None:
    """Break parts of a mesh on purpose, and measure what its wires lose and how soon all is well."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    """End a run as Ctrl-C does, by way of everything that takes its mesh away.

    A shell that starts it in the background has it ignore SIGINT itself.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


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
@click.option(
    "--situation",
    "situations",
    type=click.Choice(("idle", "ping", "stream", "request")),
    multiple=True,
    default=("stream",),
    help="What goes on meanwhile: nothing; 5 packets a second; 10,000; these and a Request under way.",
)
@click.option("--at-once", type=click.IntRange(1, 64), default=1, help="Harm so many meshes at a time.")
@click.option("--turns", type=click.Path(path_type=Path), hidden=True)
@click.option("--short", is_flag=True, help="A handful, once each.")
@click.option("-o", "--output", "style", type=click.Choice(("table", "json")), default="table")
@click.option("--json", "file", type=_FILE, help="Write JSON here too.")
@click.option("--write-docs", "docs", type=_FILE, help="Put the rows into this document, between its marks.")
@click.pass_obj
def run_scenarios(
    context: Context,
    scenarios: tuple[str, ...],
    repeat: int,
    situations: tuple[str, ...],
    at_once: int,
    turns: Path | None,
    style: str,
    file: Path | None,
    docs: Path | None,
    *,
    short: bool,
) -> None:
    """Run SCENARIOS (default: all) on meshes of their own; leave with 1 where a promise is not kept.

    NAME=TIMES does one more or less often than the others.
    """
    require_root("chaos")
    from nsmesh.chaos import publishing  # noqa: PLC0415 - only this command needs it
    from nsmesh.chaos.scenarios import chosen  # noqa: PLC0415 - only this command needs it

    load = os.getloadavg()[0]
    times = 1 if short else repeat
    wanted = {one: chosen(scenarios, times, short=short) for one in situations}
    if at_once == 1:
        rows = [row for one, some in wanted.items() for row in run(_run(context, some, one, turns))]
    else:
        rows = run(_run_at_once(wanted, at_once))
    if docs is not None:
        publishing.update(docs, publishing.surroundings(load, at_once), rows)
    text = json.dumps(rows, indent=2, ensure_ascii=False)
    if file is not None:
        file.write_text(text + "\n")
    if style == "json":
        click.echo(text)
    else:
        output.show(rows, COLUMNS, "table")
    if not all(row["kept"] for row in rows):
        sys.exit(EXIT_FAILED)


async def _run(
    context: Context, wanted: list[Wanted], situation: str, turns: Path | None
) -> list[dict[str, Any]]:
    from nsmesh.chaos import running  # noqa: PLC0415 - only this command needs it
    from nsmesh.chaos.turns import Turns  # noqa: PLC0415 - likewise

    rows = []
    async for outcome in running.run(wanted, situation, Turns(turns)):
        rows.append(outcome.row())
        if context.verbose:
            click.echo(f"{outcome.name}: {len(outcome.recovery)} times", err=True)
    return rows


async def _run_at_once(wanted: dict[str, list[Wanted]], many: int) -> list[dict[str, Any]]:
    from nsmesh.chaos import at_once  # noqa: PLC0415 - only this command needs it

    return await at_once.run(wanted, many)


@chaos.command()
@click.option("--minutes", type=click.FloatRange(0.05, 10_000), default=10.0, help="How long.")
@click.option("--seed", type=int, default=None, help="What comes when; default: by chance, and told.")
@click.option("-o", "--output", "style", type=click.Choice(("table", "json")), default="table")
@click.option("--write-docs", "docs", type=_FILE, help="Fill a part of this document, between its marks.")
def soak(minutes: float, seed: int | None, style: str, docs: Path | None) -> None:
    """Ask, close and break by chance; leave with 1 where all is not level with the start afterwards."""
    require_root("chaos")
    from nsmesh.chaos import publishing  # noqa: PLC0415 - only this command needs it
    from nsmesh.chaos import soak as soaking  # noqa: PLC0415 - only this command needs it

    load = os.getloadavg()[0]
    found = run(soaking.soak(minutes * 60, random.randrange(1 << 31) if seed is None else seed))  # noqa: S311 - no secret
    plain = found.plain()
    if docs is not None:
        text = f"{publishing.surroundings(load)}\n\n{publishing.soaked(plain)}"
        publishing.write(docs, publishing.SOAK, text)
    if style == "json":
        click.echo(json.dumps(plain, indent=2, ensure_ascii=False))
    else:
        click.echo(publishing.soaked(plain).partition("\n")[0])
        output.show(plain["processes"], SOAKED, "table")
    if not found.kept:
        sys.exit(EXIT_FAILED)
