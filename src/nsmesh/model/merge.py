"""What a client asks for when it asks again: its own changes on top of what it was given."""

from __future__ import annotations

from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, Path, State


def restores(asked: Connection) -> bool:
    """Return whether a first Request brings what an earlier process of the caller had: its path goes on."""
    return len(asked.path.path_segments) > asked.path.index + 1


def first_wish(asked: Connection) -> Connection:
    """Return what the first Request of a connection wishes: not the path, which is most of a message.

    One that takes up what an earlier process of the caller had carries the payload of its service, which
    nobody wished.
    """
    return Connection(
        network_service=asked.network_service,
        network_service_endpoint_name=asked.network_service_endpoint_name,
        payload="" if restores(asked) else asked.payload,
        labels=asked.labels,
        context=asked.context,
    )


def next_wish(wanted: Connection, asked: Connection, answered: Connection) -> Connection:
    """Return the wish after ``wanted``: that of ``asked``, with what was changed by the user."""
    result = copy_of(asked)
    _change(result, wanted, asked, answered)
    if wanted.state == State.RESELECT_REQUESTED:
        result.network_service_endpoint_name = wanted.network_service_endpoint_name
    return result


def merged(wanted: Connection, asked: Connection, answered: Connection) -> Connection:
    """Return what to ask for, from what is wanted now, what was wished last and what was answered to that.

    A field counts as changed by the user when it is neither what was wished nor what was answered: whoever
    sends the answer back, and whoever repeats the first request, both mean "go on". The head of the path, up
    to the own segment, is the caller's (its tokens are new); the tail is the answer's. A reselect lets
    endpoint, mechanism and payload be as free as the caller wants them.
    """
    result = copy_of(answered)
    _change(result, wanted, asked, answered)
    if wanted.HasField("mechanism"):
        result.mechanism.CopyFrom(wanted.mechanism)
    if wanted.state == State.RESELECT_REQUESTED:
        result.network_service_endpoint_name = wanted.network_service_endpoint_name
        if wanted.payload in (asked.payload, answered.payload):
            result.payload = asked.payload
        if not wanted.HasField("mechanism"):
            result.ClearField("mechanism")
    result.state = wanted.state
    result.path.CopyFrom(_path(wanted.path, answered.path))
    return result


def _change(result: Connection, wanted: Connection, asked: Connection, answered: Connection) -> None:
    """Take over what the user has changed."""
    if wanted.network_service not in (asked.network_service, answered.network_service):
        result.network_service = wanted.network_service
    name = wanted.network_service_endpoint_name
    if name not in (asked.network_service_endpoint_name, answered.network_service_endpoint_name):
        result.network_service_endpoint_name = name
    if wanted.payload not in ("", asked.payload, answered.payload):
        result.payload = wanted.payload
    if dict(wanted.labels) not in (dict(asked.labels), dict(answered.labels)):
        result.labels.clear()
        result.labels.update(wanted.labels)
    if wanted.context not in (asked.context, answered.context):
        result.context.CopyFrom(wanted.context)


def _path(wanted: Path, answered: Path) -> Path:
    own = wanted.index + 1
    path = Path(index=wanted.index)
    path.path_segments.extend(wanted.path_segments[:own])
    path.path_segments.extend(answered.path_segments[own:])
    return path
