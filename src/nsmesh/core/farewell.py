"""The Close of a connection whose next hop is known to be dead: sent, and not waited for."""

from __future__ import annotations

import structlog

from nsmesh.core.call import Call, Key
from nsmesh.core.element import Handler
from nsmesh.core.errors import MeshError
from nsmesh.model.messages import Connection

log = structlog.get_logger()

ABSENT: Key[bool] = Key("absent")
"""In the Close of a connection whose next hop has died: nobody is dialled, the Close is owed."""
FAREWELL = 0.02
"""Seconds that the dead have to answer a Close; what is left there ends with its tokens."""


async def close_at(next: Handler, call: Call, connection: Connection, *, dead: bool) -> None:
    """Pass a Close on; to the ``dead`` for :data:`FAREWELL` seconds, and whatever comes of it is well."""
    if not dead:
        await next.close(call, connection)
        return
    try:
        await next.close(call.within(FAREWELL), connection)
    except MeshError as error:
        log.info("close: who is dead does not answer", connection=connection.id, error=str(error))
