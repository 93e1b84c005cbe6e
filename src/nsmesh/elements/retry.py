"""Retry: a first answer of "no" is not the last."""

from __future__ import annotations

import asyncio

import structlog

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError, TimedOut
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkServiceRequest

log = structlog.get_logger()


class Retry(Element):
    """Repeats a Request that failed, until it is granted or the deadline of the call has come.

    ``interval``: seconds between the beginnings of two tries, at least; ``limit``: seconds that one try may
    take. Without a deadline it goes on for ever. What is raised at the deadline is the last try's error.

    Outermost in a client chain.
    """

    def __init__(self, *, interval: float = 0.2, limit: float = 15.0) -> None:
        self.interval = interval
        self.limit = limit

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Try, and try again."""
        clock = self.scope.clock
        tries = 0
        while True:
            started = clock.monotonic()
            tries += 1
            try:
                return await self._once(call, copy_of(request), next)
            except MeshError as error:
                again = max(clock.monotonic(), started + self.interval)
                if call.deadline is not None and again >= call.deadline:
                    raise
                log.info(
                    "request failed, trying again",
                    element="retry",
                    connection=request.connection.id,
                    tries=tries,
                    error=str(error),
                )
            await asyncio.sleep(again - clock.monotonic())

    async def _once(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        within = call.within(self.limit)
        try:
            async with asyncio.timeout_at(within.deadline):
                return await next.request(within, request)
        except TimeoutError as error:
            raise TimedOut(
                f"the Request of connection {request.connection.id} was not answered in time",
                remedy="look at the log of the next hop",
            ) from error
