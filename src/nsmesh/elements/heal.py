"""Heal: when the way to the endpoint is lost, finds it again, or another."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Collection

import structlog

from nsmesh.core.call import Call
from nsmesh.core.call import State as Kept
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.follow import Follower, Ours, way_of
from nsmesh.core.heal_looks import Alive, Carries, Looks
from nsmesh.core.heal_watch import HealWatch
from nsmesh.core.life import LIFE, OWN
from nsmesh.core.metrics import Counter
from nsmesh.core.peering import NEXT_HOP
from nsmesh.core.room import Room
from nsmesh.core.tokens import TokenSource
from nsmesh.model.messages import Connection, NetworkServiceRequest, State

log = structlog.get_logger()

ATTEMPTS = Counter(
    "nsm_heal_attempts", "Tries to heal a connection, by way and gRPC status.", ("way", "status")
)

PAUSE = 0.2
"""Seconds after a first failed attempt; it grows by half each time."""
LONGEST = 2.0
"""Most seconds between two attempts."""
AT_ONCE = 32
"""Attempts of one process that may be under way at the same time; fewer where no answer comes in time."""
SLOW = 3.0
"""Seconds after which one that fails has failed for want of time."""


class Heal(Element):
    """Asks again for a connection that the next hop lost, or that lets no packets through.

    What the next hop's monitor says decides together with ``alive``: with packets going through, the same
    endpoint is asked for again, without (or when nobody can tell) the connection is closed and endpoint and
    mechanism are chosen anew; a wire that was told as down is looked at briefly, less where its answers
    came fast, and for ``limit`` once it was found alive and nobody could be asked. An endpoint that nobody
    finds for long (:mod:`nsmesh.core.missing`) is given up, whatever its packets do. It goes on until it
    succeeds or somebody closes; a stream that ends CANCELLED means nothing. One that was found alive and then
    loses its carrier has died meanwhile: the pause ends, and the next look is a brief one.
    ``interval`` and ``limit``: seconds between two probes, and for one; ``count``: how many of them in a row
    have to find nothing. A wire that was told as down and has no carrier is not looked at any longer: both
    ``carries`` and the next hop say that it is dead.

    After:  Begin
    Reads:  NEXT_HOP
    Leaves: one stream per neighbour; with ``alive`` one task per connection
    Close:  ends watching and healing, passes on
    """

    after = ("Begin", "UpdatePath", "Refresh")

    def __init__(
        self,
        alive: Alive | None = None,
        *,
        carries: Carries | None = None,
        tokens: TokenSource | None = None,
        interval: float = 0.2,
        limit: float = 1.0,
        count: int = 1,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._looks = Looks(alive, carries, limit=limit, scope=lambda: self.scope)
        self._interval = interval
        self._count = count
        self._chance = chance
        self._watches: dict[str, HealWatch] = {}
        self._follower = Follower(lambda: self.scope, tokens)
        self._room = Room(AT_ONCE)

    @property
    def healing(self) -> list[str]:
        """Ids of the connections that are being healed now."""
        return [key for key, watch in self._watches.items() if watch.healing is not None]

    def keeps(self) -> Collection[str]:
        """Return what is watched."""
        return self._watches.keys()

    async def forget(self, connection_id: str, state: Kept) -> None:  # noqa: ARG002 - nothing is kept there
        """End watching; an attempt to heal goes on, and sees by itself whether there is a life."""
        watch = self._watches.get(connection_id)
        if watch is not None:
            watch.rest()
            if watch.healing is None:
                self._forget(connection_id, watch)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then watch what was granted."""
        connection_id = request.connection.id
        began = self.scope.clock.monotonic()
        anew = request.connection.state == State.RESELECT_REQUESTED
        before = self._watches.get(connection_id)
        if before is not None and anew:
            before.rest()  # the next hop will say that it has ended what it had
        answer = await next.request(call, request)
        life = call.state.get(LIFE)
        if life is not None and self.scope.running:
            watch = self._watches.get(connection_id)
            if watch is None or watch.life is not life:
                watch = self._watches[connection_id] = HealWatch(life, answer)
            watch.connection = answer
            watch.down = False
            watch.missing.found()
            watch.calm()
            self._watch(call, watch, began, anew=anew)
        return answer

    def _watch(self, call: Call, watch: HealWatch, began: float, *, anew: bool) -> None:
        handler = call.state.get(NEXT_HOP)
        following = watch.following
        if following is not None and (not following.live or following.handler is not handler):
            following.stop()
            watch.following = following = None
        if following is None and handler is not None:
            connection = watch.connection
            watch.following = self._follower.follow(
                handler,
                Ours.of(connection),
                began,
                lambda state: self._told(watch, state),
                anew=way_of(connection, connection.path.index) if anew else None,
            )
        if self._looks.possible and watch.probing is None:
            watch.probing = self.scope.spawn(self._probe(watch), name="heal: probe")

    def _told(self, watch: HealWatch, state: int) -> None:
        watch.down = state == State.DOWN
        if watch.down:
            self._start(watch, "the next hop lost it")
        elif state == State.REFRESH_REQUESTED and watch.healing is None and not watch.life.asking:
            self.scope.spawn(self._refresh(watch), name="heal: refresh requested")
        elif state == State.UP:
            watch.calm()

    async def _refresh(self, watch: HealWatch) -> None:
        try:
            await watch.life.rerequest()
        except MeshError as error:
            log.warning("requested refresh failed", connection=watch.connection.id, error=str(error))

    async def _probe(self, watch: HealWatch) -> None:
        """Look for packets until none come back."""
        silent = 0
        while True:
            await asyncio.sleep(self._interval)
            if watch.healing is not None:
                silent = 0
                continue
            began = self.scope.clock.monotonic()
            if await self._looks.is_alive(watch.connection):
                took = self.scope.clock.monotonic() - began
                watch.took = max(took, 0.9 * watch.took) if watch.took < math.inf else took
                silent = 0
                continue
            silent += 1
            if silent >= self._count:
                self._start(watch, "no packets come back", alive=False)

    def _start(self, watch: HealWatch, why: str, *, alive: bool | None = None) -> None:
        if watch.healing is None and self.scope.running:
            log.info("connection is down", element="heal", connection=watch.connection.id, why=why)
            watch.healing = self.scope.spawn(self._heal(watch, alive), name="heal")

    async def _heal(self, watch: HealWatch, alive: bool | None) -> None:
        """Attempt until it is done; ``alive`` is what is known of the packets, for the first time."""
        pause, patient = PAUSE, False
        try:
            while True:
                if alive is None:
                    alive = await self._looks.is_alive_after_all(watch, patient=patient)
                done = await self._attempt(watch, reselect=not alive or self._is_missing(watch))
                if done and not watch.down:
                    return
                if alive and not await self._looks.is_alive_after_all(watch, patient=patient):
                    alive = False  # it died meanwhile: whoever else is there can be asked at once
                    continue
                # nobody answers and the wire lives on: one late echo on a busy machine must not end it
                patient, alive = alive, None
                await self._looks.pause(watch, pause * (1 + self._chance()) / 2, alive=patient)
                pause = min(pause * 1.5, LONGEST)
        finally:
            if watch.healing is asyncio.current_task():
                watch.healing = None

    def _is_missing(self, watch: HealWatch) -> bool:
        return watch.missing.too_long(self.scope.clock.monotonic())

    async def _attempt(self, watch: HealWatch, *, reselect: bool) -> bool:
        """Ask once; returns whether there is nothing more to do."""
        connection_id = watch.connection.id
        try:
            async with self._room as entered:
                watch.asking = True
                began = self.scope.clock.monotonic()
                healed = await watch.life.rerequest(reselect=reselect)
        except MeshError as error:
            now = self.scope.clock.monotonic()
            if now - began > SLOW:
                self._room.late(entered)
            watch.missing.note(watch.connection.network_service_endpoint_name, error, now)
            ATTEMPTS.add("reselect" if reselect else "restore", error.status.name)
            log.warning(
                "healing failed",
                element="heal",
                connection=connection_id,
                reselect=reselect,
                error=str(error),
            )
            return False
        finally:
            watch.asking = False
        self._room.in_time()
        if healed is None:
            watch.down = False
            self._forget(connection_id, watch)
        else:
            ATTEMPTS.add("reselect" if reselect else "restore", "OK")
            endpoint = healed.network_service_endpoint_name
            log.info("healed", element="heal", connection=connection_id, reselect=reselect, endpoint=endpoint)
        return True

    def _forget(self, connection_id: str, watch: HealWatch) -> None:
        watch.rest()
        if self._watches.get(connection_id) is watch:
            del self._watches[connection_id]

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """End watching, pass on. A Close that nobody asked for (a reselect, an undo) lets healing go on."""
        watch = self._watches.get(connection.id)
        if watch is not None:
            watch.rest()
            if watch.healing is None or not call.get(OWN):
                watch.calm()
                self._forget(connection.id, watch)
        await next.close(call, connection)
