"""``nsm logs``."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from nsmesh.cli import completing
from nsmesh.cli.context import Context, run
from nsmesh.cli.log_follow import Followed
from nsmesh.core.errors import MeshError, NotFound
from nsmesh.standalone.log_files import earlier

_COLOUR = {"error": "red", "critical": "red", "warning": "yellow", "debug": "blue"}
_HIDDEN = ("event", "level", "timestamp", "role", "exception")
_TAIL = 1 << 20
"""Bytes of each log that are read from its end."""


@click.command()
@click.argument("target", required=False, default="", shell_complete=completing.logs)
@click.option("-f", "--follow", is_flag=True, help="Then print what is written, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=50, help="Lines of the past (0: all).")
@click.option(
    "-e",
    "--element",
    "elements",
    multiple=True,
    help="Only lines of this element (repeatable): timeout, heal.",
)
@click.option("--json", "raw", is_flag=True, help="Print the lines as they were written.")
@click.pass_obj
def logs(
    context: Context, target: str, lines: int, elements: tuple[str, ...], *, follow: bool, raw: bool
) -> None:
    """Print the logs of a mesh: of all, or of one TARGET.

    TARGET is a role (daemon; registry, nsmgr, forwarder where they run apart), an endpoint, a workload, or
    the id of a connection: then all lines about it, at every hop.
    """
    context.require_access()
    folder = context.paths.logs
    files = sorted(folder.glob("*.log"))
    if not files:
        raise NotFound(f"there are no logs in {folder}", remedy="bring the mesh up first: nsm up")
    own = [path for path in files if path.stem == target]
    about = None if own or not target else _about(context, target)
    wanted = _Wanted(about, frozenset(elements))
    past = _past(own or files, wanted)
    for line in past[-lines:] if lines else past:
        click.echo(line[1] if raw else _pretty(*line))
    if not past and not follow:
        raise _nothing(target, elements, files)
    if follow:
        _follow(folder, target if own else "", wanted, raw=raw)


def _nothing(target: str, elements: tuple[str, ...], files: list[Path]) -> NotFound:
    known = ", ".join(path.stem for path in files)
    if elements:
        of = f" about {target}" if target else ""
        return NotFound(
            f"no line of the logs{of} is of the element {' or '.join(elements)}",
            remedy="see what elements there are: nsm logs --json, key element",
        )
    return NotFound(
        f"no line of the logs is about {target}" if target else "the logs are empty",
        remedy=f"logs here: {known}; or give a connection id",
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which lines are printed: those that contain ``about`` and are of one of ``elements``, where given."""

    about: re.Pattern[str] | None
    elements: frozenset[str]

    def __contains__(self, line: str) -> bool:
        if self.about is not None and not self.about.search(line):
            return False
        return not self.elements or _field(line, "element") in self.elements


def _about(context: Context, target: str) -> re.Pattern[str]:
    """Return what lines about a connection contain: its id at any hop, or the target as it is."""
    from nsmesh.cli import control  # noqa: PLC0415 - only for connections

    async def ids() -> set[str]:
        async with context.control() as client:
            found = await control.rows(client, "connections")
        hops = [{hop["id"] for hop in row["hops"]} for row in found]
        return set().union(*(some for some in hops if target in some))

    try:
        wanted = run(ids())
    except MeshError:
        wanted = set()
    words = "|".join(re.escape(word) for word in sorted({target, *wanted}))
    return re.compile(rf"(?<![\w-])(?:{words})(?![\w-])")


def _past(files: list[Path], wanted: _Wanted) -> list[tuple[str, str]]:
    """Return (source, line) of all files, in the order of time where lines have one."""
    found: list[tuple[str, str, str]] = []
    for path in files:
        last = ""
        for line in _end(path).decode(errors="replace").splitlines():
            last = _field(line, "timestamp") or last
            if line in wanted:
                found.append((last, path.stem, line))
    return [(source, line) for _, source, line in sorted(found, key=lambda item: item[0])]


def _end(path: Path) -> bytes:
    """Return what a log said last, of what was put aside too."""
    text = b""
    for one in (path, earlier(path)):
        if len(text) < _TAIL and one.exists():
            with one.open("rb") as stream:
                stream.seek(max(0, one.stat().st_size - (_TAIL - len(text))))
                text = stream.read() + text
    return text


def _field(line: str, name: str) -> str:
    try:
        data = json.loads(line)
    except ValueError:
        return ""
    return str(data.get(name, "")) if isinstance(data, dict) else ""


def _pretty(source: str, line: str) -> str:
    try:
        data: Any = json.loads(line)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        return f"{click.style(source, dim=True)} {line}"
    level = str(data.get("level", "info"))
    when = str(data.get("timestamp", ""))[11:23]
    facts = " ".join(f"{key}={value}" for key, value in data.items() if key not in _HIDDEN)
    head = click.style(level.ljust(7), fg=_COLOUR.get(level))
    text = f"{when} {head} {click.style(source, dim=True)} {data.get('event', '')} {facts}".rstrip()
    return f"{text}\n{data['exception']}" if "exception" in data else text


def _follow(folder: Path, only: str, wanted: _Wanted, *, raw: bool) -> None:
    followed = {path: Followed(path, path.stat().st_size) for path in folder.glob("*.log")}
    while True:
        for path in sorted(folder.glob("*.log")):
            if path not in followed:
                followed[path] = Followed(path)
        for path, log in followed.items():
            if only and path.stem != only:
                continue
            for line in log.lines():
                if line in wanted:
                    click.echo(line if raw else _pretty(path.stem, line))
        sys.stdout.flush()
        time.sleep(0.1)
