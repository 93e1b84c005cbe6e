"""``nsm version``."""

from __future__ import annotations

import platform

import click

import nsmesh


@click.command()
def version() -> None:
    """Print the versions of nsmesh, Python and the kernel."""
    click.echo(f"nsm {nsmesh.__version__}")
    click.echo(f"python {platform.python_version()}")
    click.echo(f"kernel {platform.release()}")
