"""``nsm conformance``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from nsmesh.cli import output
from nsmesh.cli.context import EXIT_FAILED, Context, run
from nsmesh.core import logging
from nsmesh.core.errors import Invalid

_COLOUR = {"pass": "green", "fail": "red", "skip": "yellow"}


@click.group()
def conformance() -> None:
    """Check peers against the wire contract: managers and registries, whoever wrote them."""


@conformance.command("list")
@click.option("-o", "--output", "style", type=click.Choice(output.FORMATS), default="table")
def list_cases(style: str) -> None:
    """List the cases, and what each expects."""
    from nsmesh.conformance.running import CASES  # noqa: PLC0415 - only this command needs it

    rows = [{"case": case.name, "section": case.section, "expected": case.expected} for case in CASES]
    output.show(rows, ("case", "section", "expected"), style)


@conformance.command("run")
@click.argument("cases", nargs=-1)
@click.option("--nsmgr", envvar="NSM_CONFORMANCE_NSMGR", default="", help="URL of the manager to check.")
@click.option(
    "--registry", envvar="NSM_CONFORMANCE_REGISTRY", default="", help="URL of the registry to check."
)
@click.option("--forwarder", envvar="NSM_CONFORMANCE_FORWARDER", default="", help="URL of a forwarder.")
@click.option("--endpoint", envvar="NSM_CONFORMANCE_ENDPOINT", default="", help="URL of an endpoint.")
@click.option(
    "--spiffe-endpoint-socket",
    "spiffe",
    envvar="SPIFFE_ENDPOINT_SOCKET",
    default="",
    help="Workload API that gives the tester its identity.",
)
@click.option(
    "--other-spiffe-endpoint-socket",
    "other",
    envvar="NSM_CONFORMANCE_OTHER_SPIFFE_ENDPOINT_SOCKET",
    default="",
    help="Workload API that gives a second identity, for the cases about ownership.",
)
@click.option("-o", "--output", "style", type=click.Choice(("table", "json", "yaml")), default="table")
@click.pass_obj
def run_cases(
    context: Context,
    cases: tuple[str, ...],
    nsmgr: str,
    registry: str,
    forwarder: str,
    endpoint: str,
    spiffe: str,
    other: str,
    style: str,
) -> None:
    """Run CASES (names or groups; default: all); leave with 1 where one fails.

    Without --nsmgr and --registry, a manager and a registry of our own are checked, in this process. Peers
    elsewhere need --spiffe-endpoint-socket: the tester must have an identity that they trust.
    """
    from nsmesh.conformance.world import Addresses  # noqa: PLC0415 - only this command needs it

    addresses = Addresses(nsmgr, registry, forwarder, endpoint, spiffe, other)
    if (addresses.nsmgr or addresses.registry) and not addresses.spiffe:
        raise Invalid("the tester has no identity", remedy="give --spiffe-endpoint-socket unix:///...")
    logging.configure(role="conformance", level="DEBUG" if context.verbose else "FATAL")
    rows = run(_run(addresses, cases, table=style == "table"))
    if style == "json":
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif style == "yaml":
        click.echo(output.as_yaml(rows), nl=False)
    if any(row["result"] == "fail" for row in rows):
        sys.exit(EXIT_FAILED)


async def _run(addresses: Any, names: tuple[str, ...], *, table: bool) -> list[dict[str, Any]]:
    from nsmesh.conformance import running  # noqa: PLC0415 - only this command needs it
    from nsmesh.conformance.world import world_of  # noqa: PLC0415 - likewise

    cases = running.chosen(names)
    rows = []
    async with world_of(addresses) as world:
        async for result in running.run(world, cases):
            rows.append(result.row())
            if table:
                _tell(rows[-1])
    if table:
        counts = {word: sum(row["result"] == word for row in rows) for word in _COLOUR}
        click.echo(", ".join(f"{count} {word}" for word, count in counts.items()))
    return rows


def _tell(row: dict[str, Any]) -> None:
    verdict = click.style(f"{row['result']:4}", fg=_COLOUR[row["result"]])
    click.echo(f"{verdict}  {row['case']:32}  {row['seen']}")
    if row["result"] == "fail":
        click.echo(f"      expected ({row['section']}): {row['expected']}")
