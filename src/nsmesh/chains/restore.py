"""Restoring: a client that starts again takes up the connection that its manager still holds."""

from __future__ import annotations

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Handler
from nsmesh.core.errors import MeshError, Status
from nsmesh.core.heal_looks import Alive
from nsmesh.core.missing import Missing
from nsmesh.core.peering import closing
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, ConnectionEvent, MonitorScopeSelector, PathSegment, State

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


class Kept:
    """What is known of one wire that the manager holds for us, while it is taken over.

    The rule is that of healing: one that lets packets through is asked for again as long as that takes, since
    whoever is on the way to its endpoint may just be starting, too. It is given up for another when its
    endpoint is not found for long, or when no packets come back; one late echo is not enough for that.
    """

    def __init__(self, alive: Alive | None) -> None:
        self._alive = alive
        self._missing = Missing()
        self._refused = False
        self._lived = False

    def refused(self, held: Connection, error: MeshError, now: float) -> None:
        """Hear why it could not be had again."""
        self._refused = True
        self._missing.note(held.network_service_endpoint_name, error, now)

    async def is_over(self, held: Connection, now: float) -> bool:
        """Return whether it is to be given up for another."""
        if held.state != State.DOWN and not self._refused:
            return False
        if self._missing.too_long(now):
            return True
        lives = await self._lives(held) or (self._lived and await self._lives(held))
        self._lived = lives
        return not lives

    async def _lives(self, held: Connection) -> bool:
        try:
            return self._alive is not None and await self._alive(held)
        except (MeshError, OSError):
            return False
