"""Names of objects for the completion of a shell: asked of the mesh, and nothing where that cannot be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nsmesh.cli.context import Context
from nsmesh.core.errors import MeshError
from nsmesh.model import control as api

if TYPE_CHECKING:
    import click

PATIENCE = 1.0
"""Seconds that a shell waits for names at the most."""


def context_of(ctx: click.Context) -> Context:
    """Return the options before the command: while a shell completes, nobody else has kept them."""
    params = ctx.find_root().params
    return Context(params.get("mesh") or "", params.get("run_dir") or "", params.get("state_dir") or "")


def kinds(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - the face asks for it
    """Return the kinds that begin with what is there."""
    return [kind for kind in api.KINDS if kind.startswith(incomplete)]


def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - the face asks for it
    """Return names of the kind that stands in front."""
    from nsmesh.cli.objects import kind_of  # noqa: PLC0415 - it imports this module

    try:
        return _names(context_of(ctx), kind_of(ctx.params.get("what") or ""), incomplete)
    except MeshError:
        return []


def connections(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - the face asks for it
    """Return ids of connections."""
    return _names(context_of(ctx), "connections", incomplete)


def clients(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - the face asks for it
    """Return names of clients."""
    return _names(context_of(ctx), "clients", incomplete)


def logs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - the face asks for it
    """Return what there are logs of."""
    context = context_of(ctx)
    files = [path.stem for path in context.paths.logs.glob("*.log")]
    return sorted(
        name for name in [*files, *_names(context, "connections", "")] if name.startswith(incomplete)
    )


def _names(context: Context, kind: str, incomplete: str) -> list[str]:
    from nsmesh.cli import control  # noqa: PLC0415 - only while a shell completes

    async def ask() -> list[str]:
        async with asyncio.timeout(PATIENCE), context.control() as client:
            rows = await control.rows(client, kind)
        return [str(row.get("id") or row.get("name")) for row in rows]

    try:
        return [name for name in asyncio.run(ask()) if name.startswith(incomplete)]
    except (MeshError, OSError, TimeoutError):
        return []
