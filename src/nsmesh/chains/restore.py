"""Restoring: a client that starts again takes up the connection that its manager still holds."""

from __future__ import annotations

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Handler
from nsmesh.core.errors import MeshError, Status
from nsmesh.core.peering import closing
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, ConnectionEvent, MonitorScopeSelector, PathSegment

log = structlog.get_logger()


async def held_connection(
    manager: Handler, call: Call, connection_id: str, mechanism: str
) -> Connection | None:
    """Return the connection as a client may send it again, or None where the manager holds none.

    ``manager``: the client's own chain. The client's segment must be the first one and its mechanism of the
    type that is wanted now. The state is the one that the manager tells. Raises what the manager answers.
    """
    selector = MonitorScopeSelector(path_segments=[PathSegment(id=connection_id)])
    try:
        async with closing(manager.monitor(call, selector)) as events:
            async for event in events:
                return _found(event, connection_id, mechanism)
    except MeshError as error:
        if error.status != Status.UNIMPLEMENTED:
            raise
        log.info("the manager has no monitor: nothing is restored", connection=connection_id)
    return None


def _found(event: ConnectionEvent, connection_id: str, mechanism: str) -> Connection | None:
    for connection in event.connections.values():
        segments = connection.path.path_segments
        if connection.path.index != 1 or len(segments) < 2 or segments[0].id != connection_id:
            continue
        if connection.mechanism.type != mechanism:
            continue
        found = copy_of(connection)
        found.id = connection_id
        found.path.index = 0
        return found
    return None
