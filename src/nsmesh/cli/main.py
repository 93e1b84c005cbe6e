"""The command ``nsm``."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from nsmesh.cli.context import Context, command_line

COMMANDS = {
    "up": "mesh",
    "down": "mesh",
    "restart": "restart",
    "upgrade": "upgrade",
    "status": "status",
    "join": "hosts",
    "leave": "hosts",
    "token": "hosts",
    "nodes": "hosts",
    "node": "hosts",
    "apply": "objects",
    "delete": "objects",
    "get": "objects",
    "describe": "objects",
    "connect": "wires",
    "disconnect": "wires",
    "logs": "logs",
    "doctor": "doctor",
    "demo": "demo",
    "run": "run",
    "conformance": "conformance",
    "chaos": "chaos",
    "completion": "completion",
    "version": "version",
}
"""Command and the module of this package that has it; modules are imported when they are needed."""


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the face asks for it
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 - the face asks for it
        module = COMMANDS.get(name)
        if module is None:
            return None
        command: click.Command = getattr(importlib.import_module(f"nsmesh.cli.{module}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # before click sees it, who calls it a failure
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
            ctx.exit(0)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib  # noqa: PLC0415 - only for mistakes

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" - did you mean '{near[0]}'?" if near else " - see: nsm --help"
            ctx.fail(f"no such command '{args[0]}'{hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the mesh is not up, 130 interrupted.",
)
@click.option(
    "--mesh", envvar="NSM_MESH", default="", help="Which mesh on this host (NSM_MESH; default: default)."
)
@click.option("--run-dir", envvar="NSM_RUN_DIR", default="", help="Run directory (NSM_RUN_DIR).")
@click.option("--state-dir", envvar="NSM_STATE_DIR", default="", help="State directory (NSM_STATE_DIR).")
@click.option("-v", "--verbose", count=True, help="Say more; twice: everything.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")
@click.pass_context
def cli(ctx: click.Context, mesh: str, run_dir: str, state_dir: str, verbose: int, *, quiet: bool) -> None:
    """Run a Network Service Mesh: virtual wires on demand, by the name of a service.

    Start with `nsm doctor`, then `nsm demo` or `nsm up`.
    """
    ctx.obj = Context(mesh, run_dir, state_dir, verbose, quiet)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; every error is one sentence on stderr and an exit code."""
    return command_line(cli, "nsm", arguments)


if __name__ == "__main__":
    main()
