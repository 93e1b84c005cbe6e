"""Refresh: asks again for what we have before anybody's token ends."""

from __future__ import annotations

import random
from collections.abc import Callable

import structlog

from nsmesh.core.call import Call, Key, State
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.life import LIFE, Life
from nsmesh.core.metrics import Counter
from nsmesh.core.scope import Timer
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.model.refresh import refresh_delay

log = structlog.get_logger()

REFRESHES = Counter("nsm_refresh_refreshes", "Refreshes that a client has sent, by gRPC status.", ("status",))

RETRY = 0.2
"""Seconds between two tries of a refresh that failed, and the least between any two refreshes."""
SPREAD = 0.1
"""How much earlier than due a refresh may come, as a part of the delay: thousands do not come at once."""


class _Watch:
    __slots__ = ("ended", "timer", "trying")

    def __init__(self) -> None:
        self.timer: Timer | None = None
        self.trying = False
        self.ended = False

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


WATCH: Key[_Watch] = Key("refresh")


class Refresh(Element):
    """Sends a connection's Request again at a part of the shortest remaining life of its tokens.

    A refresh that fails is repeated every 200 ms, also beyond the end of the tokens; one that somebody else
    just asks for is not asked for twice. ``chance`` returns 0 to 1.

    After:  Begin
    Reads:  ``expires`` of all path segments of the answer
    Leaves: one timer per connection
    Close:  cancels the timer, then passes on
    """

    after = ("Begin", "UpdatePath")

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - there is one per state
        """Cancel the timer."""
        watch = state.pop(WATCH)
        if watch is not None:
            watch.ended = True
            watch.stop()

    async def resume(self, call: Call, connection: Connection) -> None:  # noqa: ARG002 - the face asks for it
        """Ask again at once: nobody has refreshed or followed it since our end."""
        life = call.state.get(LIFE)
        if life is not None:
            self._begin(call, life, 0.0)

    def _begin(self, call: Call, life: Life, delay: float) -> None:
        watch = _Watch()
        call.state.set(WATCH, watch)
        self._arm(watch, life, delay)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then set the timer; a Request that fails leaves the old one.

        One that lives and has none was an earlier process's of ours, and is asked for again.
        """
        try:
            answer = await next.request(call, request)
        except BaseException:
            life = call.state.get(LIFE)
            if life is not None and life.up and call.state.get(WATCH) is None:
                self._begin(call, life, RETRY)
            raise
        delay = refresh_delay(answer.path, self.scope.clock.now())
        life = call.state.get(LIFE)
        if life is not None:
            watch = call.state.get(WATCH)
            if watch is None:
                watch = _Watch()
                call.state.set(WATCH, watch)
            watch.stop()
            if delay is not None:
                self._arm(watch, life, max(RETRY, delay * (1 - SPREAD * self._chance())))
        return answer

    def _arm(self, watch: _Watch, life: Life, delay: float) -> None:
        if not self.scope.running:
            return

        def fire() -> None:
            watch.timer = None
            if watch.trying or life.asking:
                self._arm(watch, life, RETRY)
            else:
                watch.trying = True
                self.scope.spawn(self._refresh(watch, life), name="refresh")

        watch.timer = self.scope.after(delay, fire)

    async def _refresh(self, watch: _Watch, life: Life) -> None:
        known = life.connection
        try:
            await life.rerequest()
        except MeshError as error:
            name = known.id if known is not None else ""
            REFRESHES.add(error.status.name)
            log.warning("refresh failed", element="refresh", connection=name, error=str(error))
        else:
            REFRESHES.add("OK")
        finally:
            watch.trying = False
            if watch.timer is None and not watch.ended and life.up:
                self._arm(watch, life, RETRY)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Cancel the timer, pass on."""
        await self.forget(connection.id, call.state)
        await next.close(call, connection)
