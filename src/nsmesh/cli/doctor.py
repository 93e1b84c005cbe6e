"""``nsm doctor``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from nsmesh.cli.context import EXIT_FAILED, Context
from nsmesh.standalone.doctor import FINE, MISSING, examine

_COLOUR = {FINE: "green", MISSING: "red"}


@click.command()
@click.option("-o", "--output", "style", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def doctor(context: Context, style: str) -> None:
    """Say what this host lacks: rights, programs, kernel features. Changes nothing.

    Exit code 1 when something is missing.
    """
    findings = examine(context.paths)
    if style == "json":
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = click.style(finding.state.ljust(8), fg=_COLOUR.get(finding.state, "yellow"))
            click.echo(f"{mark} {finding.what.ljust(16)} {finding.detail}")
            if finding.remedy:
                lost = f" (needed for: {finding.needed_for})" if finding.needed_for else ""
                click.echo(f"         -> {finding.remedy}{lost}")
    if any(finding.state == MISSING for finding in findings):
        sys.exit(EXIT_FAILED)
