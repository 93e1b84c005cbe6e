"""Timeout: closes a connection whose client stopped refreshing it."""

from __future__ import annotations

import asyncio

import structlog

from nsmesh.core.call import Call, Key, State
from nsmesh.core.codecs import json_codec
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Invalid, MeshError
from nsmesh.core.journalling import GRACE
from nsmesh.core.life import LIFE, Life
from nsmesh.core.metrics import Counter
from nsmesh.core.scope import Timer
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.times import seconds

log = structlog.get_logger()

CLOSES = Counter("nsm_timeout_closes", "Connections that were closed because nobody refreshed them.")


MOST = 1 / 3
"""Part of a token's life by which the Close may come earlier: refreshes come at 0.2 to 0.4 of it."""


class _Alarm:
    """The timer of one connection, or the Close that it started and that may still wait for its turn."""

    __slots__ = ("closing", "due", "timer")

    def __init__(self) -> None:
        self.due: float | None = None
        self.timer: Timer | None = None
        self.closing: asyncio.Task[None] | None = None

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


ALARM: Key[_Alarm] = Key("alarm")
DUE: Key[float] = Key("due", json_codec(float))
"""Wall time of the automatic Close."""
CLOSING: Key[bool] = Key("closing", json_codec(bool))
"""Whether a Close has come as far as here."""
AFTER_START = 1.0
"""Seconds after its start in which a process has taken up all that it had."""


class Timeout(Element):
    """Closes a connection when its client's token ends, less the time that the client gives one call.

    That time counts up to a third of the token's life: with tokens that live no longer than a call may take,
    what was just granted would be closed at once.

    A Close that came as far as here is noted. Where our process dies before it is done, the one that comes
    after us closes: whoever asked may be gone, or take what it heard for an answer.

    After:  Begin, UpdateToken
    Reads:  ``expires`` of the previous path segment, the deadline of the Request
    Leaves: one timer per connection; that a Close has begun
    Close:  cancels the timer, then passes on
    """

    after = ("Begin", "UpdateToken")

    async def resume(self, call: Call, connection: Connection) -> None:
        """Set the timer as it was; a client that could not refresh while we were away has a while for it.

        What our predecessor was about to close is closed, unless it is asked for before.
        """
        due, clock = call.state.get(DUE), self.scope.clock
        if due is None:
            due = clock.now() + self._due(call, connection) - clock.monotonic()
        alarm = _Alarm()
        call.state.set(ALARM, alarm)
        left = AFTER_START if call.state.get(CLOSING) else max(due - clock.now(), GRACE)
        self._arm(alarm, call, clock.monotonic() + left)

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - there is one per state
        """Cancel the timer."""
        alarm = state.pop(ALARM)
        if alarm is not None:
            alarm.stop()

    def _due(self, call: Call, connection: Connection) -> float:
        """Return the loop time of the automatic Close."""
        index = connection.path.index
        segments = connection.path.path_segments
        if index == 0 or index > len(segments) or not segments[index - 1].HasField("expires"):
            raise Invalid(
                "expiration for the previous path segment cannot be nil: "
                f"connection {connection.id} at path index {index}",
                remedy="send nsm-client-token-expires, under a name that differs from this component's",
            )
        clock = self.scope.clock
        life = seconds(segments[index - 1].expires) - clock.now()
        budget = min(call.remaining() or 0.0, max(life, 0.0) * MOST)
        return clock.monotonic() + life - budget

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then set the timer; a Request that fails leaves the old one."""
        due = self._due(call, request.connection)
        alarm = call.state.get(ALARM)
        if alarm is None:
            alarm = _Alarm()
            call.state.set(ALARM, alarm)
        alarm.stop()
        if alarm.closing is not None:
            alarm.closing.cancel()  # it waits behind this very Request
            alarm.closing = None
        call.state.pop(CLOSING)
        try:
            answer = await next.request(call, request)
        except BaseException:
            self._arm(alarm, call, alarm.due)
            raise
        self._arm(alarm, call, due)
        return answer

    def _arm(self, alarm: _Alarm, call: Call, due: float | None) -> None:
        life = call.state.get(LIFE)
        if due is None or life is None or not self.scope.running:
            return
        alarm.due = due
        clock = self.scope.clock
        call.state.set(DUE, clock.now() + due - clock.monotonic())

        def fire() -> None:
            alarm.timer = None
            expire = self._expire(life, begun=call.state.get(CLOSING) is True)
            alarm.closing = self.scope.spawn(expire, name="timeout: close")

        alarm.timer = self.scope.at(due, fire)

    async def _expire(self, life: Life, *, begun: bool) -> None:
        connection = life.connection
        if connection is None:
            return
        if begun:
            log.info("a Close that was cut off: close", element="timeout", connection=connection.id)
        else:
            CLOSES.add()
            log.info("nobody refreshed the connection: close", element="timeout", connection=connection.id)
        try:
            await life.close()
        except MeshError as error:
            log.warning("automatic close failed", connection=connection.id, error=str(error))

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Cancel the timer, note it, pass on."""
        await self.forget(connection.id, call.state)
        life = call.state.get(LIFE)
        if life is not None and life.up:
            call.state.set(CLOSING, value=True)
            life.keep()
        await next.close(call, connection)
