"""What every command has: where its mesh is, how to reach it, how to fail."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from nsmesh.core.errors import MeshError, TimedOut, Unauthorized, Unavailable

if TYPE_CHECKING:
    from nsmesh import rpc
    from nsmesh.standalone.paths import MeshPaths

T = TypeVar("T")

PATIENCE = 3.0
"""Seconds within which a daemon must answer."""
EXIT_FAILED = 1
EXIT_NOT_UP = 3
EXIT_INTERRUPTED = 130


class NotUp(Unavailable):
    """The mesh that a command needs is not up."""


def tell(error: MeshError) -> None:
    """Print one sentence with cause and remedy."""
    click.secho("error: ", fg="red", bold=True, nl=False, err=True)
    click.echo(error.what, err=True)
    for line in error.remedy.splitlines():
        click.echo(f"  -> {line}", err=True)


def fail(error: MeshError) -> NoReturn:
    """Print one sentence with cause and remedy; leave with the code that fits."""
    tell(error)
    sys.exit(EXIT_NOT_UP if isinstance(error, NotUp) else EXIT_FAILED)


def command_line(command: click.Command, name: str, arguments: list[str] | None) -> Any:
    """Run a command line; every error is one sentence on stderr and an exit code."""
    try:
        return command.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except MeshError as error:
        fail(error)


@dataclass(frozen=True)
class Context:
    """The options that stand before the command."""

    mesh: str = ""
    run_dir: str = ""
    state_dir: str = ""
    verbose: int = 0
    quiet: bool = False

    @property
    def paths(self) -> MeshPaths:
        """Where the mesh keeps its things."""
        from nsmesh.standalone.paths import MeshPaths  # noqa: PLC0415 - a role that runs alone has no mesh

        return MeshPaths.of(self.mesh, self.run_dir, self.state_dir)

    def say(self, text: str, **style: Any) -> None:
        """Print progress, unless ``-q``."""
        if not self.quiet:
            click.secho(text, **style)

    def require_access(self) -> None:
        """Raise Unauthorized where the mesh is there and this user may not look into it."""
        run = self.paths.run
        if os.geteuid() != 0 and run.exists() and not os.access(run, os.R_OK | os.X_OK):
            raise Unauthorized(f"the mesh in {run} is not yours", remedy="run as root (sudo nsm ...)")

    @asynccontextmanager
    async def control(self) -> AsyncIterator[rpc.Client]:
        """Connect to the daemon's control interface.

        Raises NotUp (exit code 3) when there is none, Unauthorized when this user may not use it.
        """
        from nsmesh import rpc  # noqa: PLC0415 - half of the start of a command, and not all talk to a daemon
        from nsmesh.standalone.lock import daemon_pid  # noqa: PLC0415 - like the next one

        paths = self.paths
        self.require_access()
        option = f" --mesh {paths.mesh}" if self.mesh else ""
        try:
            client = await rpc.connect(f"unix://{paths.control}", timeout=PATIENCE)
        except Unavailable as error:
            raise NotUp(
                f"the mesh {paths.mesh} is not up (nobody answers at {paths.control})",
                remedy=f"start it with: nsm{option} up",
            ) from error
        except TimedOut as error:
            pid = daemon_pid(paths)
            raise Unavailable(
                f"the daemon of the mesh {paths.mesh} (pid {pid}) does not answer",
                remedy=f"see {paths.logs / 'daemon.log'}, or end it: kill -9 {pid}; nsm{option} up",
            ) from error
        try:
            yield client
        except Unavailable as error:
            if daemon_pid(paths) is not None:
                raise
            raise Unavailable(
                f"the mesh {paths.mesh} ended meanwhile", remedy=f"see: nsm{option} status"
            ) from error
        finally:
            await client.aclose()


def require_root(what: str) -> None:
    """Refuse at once, with the remedy, where root is needed."""
    if os.geteuid() != 0:
        raise Unauthorized(
            f"{what} makes network namespaces and interfaces, which needs root", remedy="run it with sudo"
        )


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine."""
    import asyncio  # noqa: PLC0415 - a third of the start of a command, and not all run one

    return asyncio.run(work)
