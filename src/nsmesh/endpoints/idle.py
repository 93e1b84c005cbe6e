"""Idle: notices that nobody has used an endpoint for a while."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Self

from nsmesh.core.call import Call, State
from nsmesh.core.element import Element, Handler
from nsmesh.core.scope import Timer
from nsmesh.model.messages import Connection, NetworkServiceRequest


class Idle(Element):
    """Calls ``idle`` when there has been no connection for ``timeout`` seconds; 0 is never.

    After:  Begin
    Leaves: one timer, while no connection lives
    Close:  passes on; the last one starts the timer
    """

    after = ("Begin",)

    def __init__(self, timeout: float, idle: Callable[[], None]) -> None:
        self._timeout = timeout
        self._idle = idle
        self._living: set[str] = set()
        self._timer: Timer | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Count from the start: an endpoint that nobody ever asks is idle too."""
        self._rearm()
        try:
            yield self
        finally:
            self._stop()

    def keeps(self) -> Collection[str]:
        """Return what keeps the endpoint from being idle."""
        return self._living

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Count it no more."""
        if connection_id in self._living:
            self._living.discard(connection_id)
            self._rearm()

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Note the connection, pass on; one that fails is closed by Begin."""
        self._living.add(request.connection.id)
        self._stop()
        return await next.request(call, request)

    async def resume(self, call: Call, connection: Connection) -> None:  # noqa: ARG002 - the face asks for it
        """Note the connection."""
        self._living.add(connection.id)
        self._stop()

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on, forget the connection."""
        try:
            await next.close(call, connection)
        finally:
            self._living.discard(connection.id)
            self._rearm()

    def _rearm(self) -> None:
        self._stop()
        if self._timeout > 0 and not self._living and self.scope.running:
            self._timer = self.scope.after(self._timeout, self._idle)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
