"""UpdatePath: the process's own segment in the path of each connection."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

import structlog

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Invalid, MeshError, TimedOut
from nsmesh.core.life import REPLACED, Life
from nsmesh.core.logging import of_connection
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.path import Entered, PathError, enter, leave, renewed

log = structlog.get_logger()


def _uuid() -> str:
    return str(uuid.uuid4())


class UpdatePath(Element):
    """Enters the process's segment into the path, and gives the caller its own id and index back.

    Outermost in both halves of a process, under the same name: the second half leaves the path as it is.
    ``begin``, of a server's half, knows what lives here: who takes the place of the hop in front of us gets a
    connection of its own, since that of its predecessor listens to its owner alone. Who asks without our
    segment, and has a connection here all the same, has not heard of it: it is closed first.

    Reads:  path, connection id
    Writes: path, connection id; on the way back the caller's; REPLACED in the call
    Close:  the same
    """

    def __init__(self, name: str, new_id: Callable[[], str] = _uuid, *, begin: Begin | None = None) -> None:
        self.name = name
        self._new_id = new_id
        self._begin = begin

    def _enter(self, connection: Connection) -> Entered:
        try:
            return enter(connection, self.name, self._new_id)
        except PathError as error:
            raise Invalid(
                str(error), remedy="send the path of the last answer, or one segment of your own at index 0"
            ) from error

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Enter, pass on, leave."""
        entered = self._enter(request.connection)
        if self._begin is not None and (life := self._begin.known_to(call.peer, request.connection)):
            await _end(call, life)
        if self._begin is not None and self._begin.is_anothers(call.peer, request.connection):
            log.info(
                "another hop goes on with a connection: it gets its own", connection=request.connection.id
            )
            entered = renewed(request.connection, entered, self._new_id())
        with of_connection(request.connection.id):
            answer = await next.request(
                call.put(REPLACED, entered.replaced) if entered.replaced else call, request
            )
        try:
            leave(answer, entered)
        except PathError as error:
            raise Invalid(f"{self.name} got a bent path from the next hop: {error}") from error
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Enter, pass on; who does not know our id of his connection means it all the same."""
        entered = self._enter(connection)
        if self._begin is not None and (life := self._begin.known_to(call.peer, connection)):
            renewed(connection, entered, life.id)
        with of_connection(connection.id):
            await next.close(call, connection)


async def _end(call: Call, life: Life) -> None:
    """Close what the caller has here and has not heard of; what cannot be closed does not stop him."""
    connection = life.connection
    log.info(
        "asked anew, without our answer: what was made before is closed",
        connection=connection.id if connection is not None else "",
    )
    try:
        async with asyncio.timeout(call.remaining()):
            await life.close()
    except TimeoutError as error:
        raise TimedOut("the connection that the same caller had before did not close in time") from error
    except MeshError as error:
        log.warning("what was made before is not closed", error=str(error))
