"""What a client asks for when it asks again: its own changes on top of what it was given."""

from __future__ import annotations

from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, Path, State


def remembered(asked: Connection) -> Connection:
    """Return the part of ``asked`` that :func:`merged` looks at: not the path, which is most of a message."""
    return Connection(
        network_service=asked.network_service,
        network_service_endpoint_name=asked.network_service_endpoint_name,
        labels=asked.labels,
        context=asked.context,
    )


def merged(wanted: Connection, asked: Connection, answered: Connection) -> Connection:
    """Return what to ask for, from what is wanted now, what was asked last and what was answered to that.

    A field counts as changed by the user when it is neither what was asked nor what was answered: whoever
    sends the answer back, and whoever repeats the first request, both mean "go on". The head of the path, up
    to the own segment, is the caller's (its tokens are new); the tail is the answer's. A reselect lets
    endpoint and mechanism be as free as the caller wants them.
    """
    result = copy_of(answered)
    if wanted.network_service not in (asked.network_service, answered.network_service):
        result.network_service = wanted.network_service
    name = wanted.network_service_endpoint_name
    if name not in (asked.network_service_endpoint_name, answered.network_service_endpoint_name):
        result.network_service_endpoint_name = name
    if dict(wanted.labels) not in (dict(asked.labels), dict(answered.labels)):
        result.labels.clear()
        result.labels.update(wanted.labels)
    if wanted.context not in (asked.context, answered.context):
        result.context.CopyFrom(wanted.context)
    if wanted.HasField("mechanism"):
        result.mechanism.CopyFrom(wanted.mechanism)
    if wanted.state == State.RESELECT_REQUESTED:
        result.network_service_endpoint_name = name
        if not wanted.HasField("mechanism"):
            result.ClearField("mechanism")
    result.state = wanted.state
    result.path.CopyFrom(_path(wanted.path, answered.path))
    return result


def _path(wanted: Path, answered: Path) -> Path:
    own = wanted.index + 1
    path = Path(index=wanted.index)
    path.path_segments.extend(wanted.path_segments[:own])
    path.path_segments.extend(answered.path_segments[own:])
    return path
