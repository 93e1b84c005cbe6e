"""The path of a connection: which segment belongs to whom, on the way in and on the way back.

A process owns one segment. Both of its halves (server and client) carry the same name, and the second of the
two recognises that name and leaves the path alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, Path, PathSegment


class PathError(ValueError):
    """A path that cannot be followed; the text says which rule it breaks."""


@dataclass(frozen=True, slots=True)
class Entered:
    """What has to be put back on the way to the caller.

    ``id`` and ``index`` are the caller's; ``ids`` are the ids of the segments 0..index of the entering
    process, which an answer must still begin with. ``replaced`` is the id under which a process of another
    name stood in its place, empty for none.
    """

    id: str
    index: int
    ids: tuple[str, ...]
    replaced: str = ""


def enter(connection: Connection, name: str, new_id: Callable[[], str]) -> Entered:
    """Make ``connection`` the process ``name``'s own: its segment, its id, its index. Changes it in place.

    Raises :class:`PathError` and changes nothing when the index points behind the segments, or the current
    segment does not carry the connection's id.
    """
    path = connection.path
    segments, index = path.path_segments, path.index
    if not segments:
        own = connection.id or new_id()
        segments.add(name=name, id=own)
        connection.id = own
        path.index = 0
        return Entered(own, 0, (own,))
    if index < len(segments) and segments[index].name == name:
        ids = _ids(segments, index + 1)
        connection.id = ids[index]
        return Entered(ids[index], index, ids)
    return _step(connection, name, new_id)


def _ids(segments: Sequence[PathSegment], count: int) -> tuple[str, ...]:
    return tuple([segment.id for segment in segments[:count]])


def _step(connection: Connection, name: str, new_id: Callable[[], str]) -> Entered:
    """Go on to the segment behind the caller's."""
    path = connection.path
    segments, index = path.path_segments, path.index
    if index + 1 > len(segments):
        raise PathError(
            f"Path.Index+1=={index + 1} should be less or equal len(Path.PathSegments)=={len(segments)}"
        )
    caller = segments[index].id
    if caller != connection.id:
        raise PathError(f"Current PathSegment.Id=={caller} should be equal Connection.Id=={connection.id}")
    replaced = ""
    if index + 1 == len(segments):
        segments.add(name=name, id=new_id())
    elif segments[index + 1].name != name:
        replaced = segments[index + 1].id
        segments[index + 1].name = name
        segments[index + 1].id = new_id()
        segments[index + 1].ClearField("metrics")  # what the other one told of its interfaces
    path.index = index + 1
    ids = _ids(segments, index + 2)
    connection.id = ids[-1]
    return Entered(caller, index, ids, replaced)


def renewed(connection: Connection, entered: Entered, new_id: str) -> Entered:
    """Give the own segment, just entered, another id: what was there stays another connection's."""
    segment = connection.path.path_segments[connection.path.index]
    segment.id = connection.id = new_id
    return Entered(entered.id, entered.index, (*entered.ids[:-1], new_id), entered.replaced)


def leave(answer: Connection, entered: Entered) -> None:
    """Give an answer the caller's id and index back. Changes it in place.

    Raises :class:`PathError` when the answer's path no longer begins with the segments that went in: the hops
    in front could neither refresh nor close such a connection.
    """
    path = answer.path
    kept = _ids(path.path_segments, len(entered.ids))
    if kept != entered.ids:
        raise PathError(
            f"the answer's path begins with the ids {list(kept)} and should begin with {list(entered.ids)}"
        )
    answer.id = entered.id
    path.index = entered.index


def closable(answer: Connection, asked: Connection) -> Connection:
    """Return a copy of what a next hop answered as it can be closed there, see :func:`fitted`."""
    found = fitted(answer, asked)
    return copy_of(answer) if found is answer else found


def fitted(answer: Connection, asked: Connection) -> Connection:
    """Return what a next hop answered as it can be refreshed and closed there: itself, or else a copy.

    That is by the id, the index and the head of the path that we asked with, whatever the answer says; what
    it says of those behind us is all that is known of them.
    """
    there, here = answer.path, asked.path
    size = here.index + 1
    fits = _ids(there.path_segments, size) == _ids(here.path_segments, size)
    if fits and there.index == here.index and answer.id == asked.id:
        return answer
    found = copy_of(answer)
    found.id = asked.id
    head = here.path_segments[:size]
    if not fits:
        behind = answer.path.path_segments[len(head) :] or asked.path.path_segments[len(head) :]
        found.path.CopyFrom(Path(path_segments=[*head, *behind]))
    found.path.index = asked.path.index
    return found


def renew_tokens(
    path: Path, other: Path, count: int, may: Callable[[PathSegment, PathSegment], bool] | None = None
) -> None:
    """Write the tokens of another path's first ``count`` segments into those that are the same here.

    ``may`` is asked of each old and new segment.
    """
    for old, new in zip(path.path_segments[:count], other.path_segments[:count], strict=False):
        if (old.name, old.id) == (new.name, new.id) and (may is None or may(old, new)):
            old.token = new.token
            old.expires.CopyFrom(new.expires)
