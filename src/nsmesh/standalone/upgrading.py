"""Going over to another installation of nsmesh, role by role, while the mesh is up.

First all that can go wrong without anybody noticing: the new Python starts a fork server, which imports all
roles and says what it is and what it can read, and a daemon, which waits. Then each process ends for a
successor of the new version; one that does not get ready sends all back to the old version, whose fork server
still has the old code in its memory. The daemon hands over last.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import structlog

from nsmesh import __version__
from nsmesh.core.errors import MeshError, Refused, Unavailable
from nsmesh.standalone import formats, succession
from nsmesh.standalone.events import Event
from nsmesh.standalone.fork_keeper import OUTPUT, ready
from nsmesh.standalone.forking import ForkServer, spawned
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.restarting import restart_unit, units_of
from nsmesh.standalone.supervisor import Unit
from nsmesh.standalone.telling import last_words

log = structlog.get_logger()

Tell = Callable[[Event], None]
BEFORE = ".before-upgrade"
"""Ending of the copies of files whose tables the new version changes."""


async def check(mesh: Mesh, executable: str, version: str) -> ForkServer:
    """Return a fork server of the installation that a Python has; raises Refused where it cannot take over.

    Nothing has changed then. ``version``: what the installation must be.
    """
    log_file = mesh.paths.logs / OUTPUT
    begun = log_file.stat().st_size if log_file.exists() else 0
    forks = spawned(log_file, mesh.supervisor.title, executable)
    forks.follow()
    try:
        await ready(forks)
        _check(mesh, forks, executable, version, last_words(log_file, begun))
    except BaseException:
        forks.close()
        raise
    return forks


def _check(mesh: Mesh, forks: ForkServer, executable: str, version: str, words: str) -> None:
    stays = f"the mesh stays with {__version__}"
    if not forks.version or forks.gone:
        raise Refused(
            f"{executable} does not run nsmesh, and {stays}: {words}",
            remedy="install it there: the roles must be importable",
        )
    if version and forks.version != version:
        raise Refused(
            f"{executable} has nsmesh {forks.version}, not {version}, and {stays}",
            remedy="call the command nsm of the installation that is meant",
        )
    wrong = formats.unreadable(formats.writes(), forks.reads)
    if wrong:
        raise Refused(
            f"nsmesh {forks.version} cannot read what {__version__} keeps, and {stays}: {'; '.join(wrong)}",
            remedy="take a version between the two first, or lose what is kept: nsm down --purge; nsm up",
        )
    if mesh.state != "up":
        raise Refused(f"the mesh is {mesh.state}", remedy="wait until it is up: nsm status")


async def upgrade(mesh: Mesh, executable: str, version: str, tell: Tell) -> int:
    """Go over to the installation that a Python has; return the pid of the daemon that waits to take over.

    Raises Refused where nothing was begun, Unavailable where all is as it was before.
    """
    forks = await check(mesh, executable, version)
    try:
        daemon = await succession.prepare(mesh, executable)
    except BaseException:
        forks.close()
        raise
    before = mesh.forks.swap(forks)
    done: list[Unit] = []
    changed = [kind for kind, old in formats.writes().items() if forks.writes.get(kind) != old]
    try:
        for unit in units_of(mesh, ""):
            done.append(unit)
            await _replaced(mesh, unit, tell, changed)
    except MeshError as error:
        succession.give_up(daemon)
        await _back(mesh, before, done, tell)
        raise Unavailable(
            f"{done[-1].name} of version {forks.version} did not get ready, and all is back "
            f"at {__version__}: {error.what}",
            remedy=f"see: nsm logs {done[-1].name}",
        ) from error
    if before is not None:
        before.close()
    return daemon


async def _replaced(mesh: Mesh, unit: Unit, tell: Tell, changed: list[str]) -> None:
    """Let a successor follow on a unit; raises MeshError when it ends, or is not ready in time."""

    def keep() -> None:
        for path in _files(mesh, unit, changed):
            shutil.copy2(path, f"{path}{BEFORE}")

    await restart_unit(mesh, unit, tell, between=keep, once=True)


async def _back(mesh: Mesh, forks: ForkServer | None, done: list[Unit], tell: Tell) -> None:
    """Let all that were replaced be followed by the old version again, last first."""
    mesh.forks.swap(forks)
    for unit in reversed(done):

        def restore(unit: Unit = unit) -> None:
            for path in _files(mesh, unit, list(formats.writes())):
                copy = Path(f"{path}{BEFORE}")
                if copy.exists():
                    for tail in ("-wal", "-shm"):
                        Path(f"{path}{tail}").unlink(missing_ok=True)
                    copy.replace(path)

        try:
            await restart_unit(mesh, unit, tell, between=restore)
        except MeshError as error:
            log.error("not back yet", unit=unit.name, error=str(error))  # noqa: TRY400 - a traceback says no more


def _files(mesh: Mesh, unit: Unit, kinds: list[str]) -> list[Path]:
    """Return the files of a unit of these kinds that are there; who had them has ended, so they are whole."""
    found = []
    if "journal" in kinds:
        found.append(mesh.paths.journal(unit.name))
    if "registry" in kinds and unit.name == "registry":
        found.append(mesh.paths.registry)
    return [path for path in found if path.exists()]


def forget_copies(mesh: Mesh) -> None:
    """Remove the copies that were made for the way back."""
    for folder in (mesh.paths.journals, mesh.paths.state):
        for path in folder.glob(f"*{BEFORE}"):
            with contextlib.suppress(OSError):
                path.unlink()
