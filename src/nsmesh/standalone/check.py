"""What can be told to be wrong with documents before anything is done about them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from nsmesh.core.errors import Conflict, Invalid, MeshError, NotFound
from nsmesh.model.manifest import Document, Endpoint, Link, Workload
from nsmesh.standalone.documents import Local, key
from nsmesh.standalone.nodes import Node, wanted_node
from nsmesh.standalone.spaces import existing

D = TypeVar("D", bound=Document)


def located(document: D, directory: str) -> D:
    """Return an endpoint whose type is a file with the file's full path; anything else as it is.

    ``directory`` is what ``./file.py:Class`` is relative to.
    """
    if not isinstance(document, Endpoint):
        return document
    place, colon, name = document.type.partition(":")
    if not colon or not place.endswith(".py"):
        return document
    return replace(document, type=f"{os.path.normpath(Path(directory or '/') / place)}:{name}")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What documents are checked against.

    ``known``: the documents that stand already. ``clients``: names that ``nsm connect`` has given. ``taken``:
    names of parts of the mesh. ``hosts``: nodes that are other hosts. ``path`` is where commands
    are looked for, ``directory`` where they run.
    """

    known: Mapping[tuple[str, str], Local]
    clients: Collection[str]
    taken: Collection[str]
    nodes: Mapping[str, Node]
    hosts: Collection[str]
    path: str
    directory: str


def check(documents: Sequence[Document], around: Surroundings) -> None:
    """Raise what is wrong with ``documents``, all at once."""
    local = [item for item in documents if isinstance(item, Local)]
    after = {**around.known, **{key(item): item for item in local}}
    problems = list(_twice(documents))
    problems += [problem for item in local for problem in _problems(item, after, around)]
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise Invalid(f"{len(problems)} things are wrong, and nothing was changed\n{lines}")


def _twice(documents: Sequence[Document]) -> Iterator[MeshError]:
    seen: set[tuple[str, str]] = set()
    for document in documents:
        name = (type(document).__name__, document.name)
        if name in seen:
            yield Conflict(
                f"{' '.join(name)} is described twice", remedy="remove one of them, or apply them one by one"
            )
        seen.add(name)


def _problems(
    item: Local, after: Mapping[tuple[str, str], Local], around: Surroundings
) -> Iterator[MeshError]:
    kind, name = key(item)
    if isinstance(item, Link):
        yield from _link(item, after)
        return
    other = "workload" if kind == "endpoint" else "endpoint"
    if (other, name) in after:
        yield Conflict(
            f"{kind} {name}: there is a {other} of that name", remedy="give one of them another name"
        )
    if kind == "workload" and name in around.clients:
        yield Conflict(
            f"workload {name}: a client of that name is connected already",
            remedy=f"give it another name, or: nsm disconnect --client {name}",
        )
    if name in around.taken:
        yield Conflict(f"{kind} {name}: a role of the mesh has that name", remedy="give it another name")
    yield from _place(item, f"{kind} {name}", around)
    if isinstance(item, Workload) and item.command:
        yield from _command(item, item.env.get("PATH", around.path), item.workdir or around.directory)
    if isinstance(item, Endpoint):
        place = item.type.partition(":")[0]
        if place.endswith(".py") and not Path(place).is_file():
            yield NotFound(
                f"endpoint {name}: there is no file {place}",
                remedy="the path in spec.type is relative to the manifest's folder",
            )


def _place(item: Workload | Endpoint, what: str, around: Surroundings) -> Iterator[MeshError]:
    """Yield what is wrong with the node and the namespace that a document wants."""
    try:
        wanted_node(around.nodes, item.node, what, around.hosts)
    except MeshError as error:
        yield error
    try:
        if item.netns or (isinstance(item, Workload) and item.pid):
            existing(item.netns, getattr(item, "pid", 0))
    except MeshError as error:
        yield type(error)(f"{what}: {error.what}", remedy=error.remedy)


def _link(link: Link, after: Mapping[tuple[str, str], Local]) -> Iterator[MeshError]:
    owners = sorted(name for kind, name in after if kind != "link")
    for end in link.ends:
        if end.of not in owners:
            yield NotFound(
                f"link {link.name}: there is no workload or endpoint {end.of}",
                remedy=f"apply it first, or in the same file; there are: {', '.join(owners) or 'none'}",
            )


def _command(workload: Workload, path: str, directory: str) -> Iterator[MeshError]:
    if not Path(directory).is_dir():
        yield NotFound(
            f"workload {workload.name}: there is no directory {directory}", remedy="correct spec.workdir"
        )
        return
    program = workload.command[0]
    if "/" in program:
        place = Path(directory) / program
        found = place.is_file() and os.access(place, os.X_OK)
    else:
        found = shutil.which(program, path=path) is not None
    if not found:
        yield NotFound(
            f"workload {workload.name}: the command {program!r} is not there",
            remedy=f"correct spec.command, or spec.env.PATH (searched: {path})"
            if "/" not in program
            else f"correct spec.command (looked for in {directory})",
        )
