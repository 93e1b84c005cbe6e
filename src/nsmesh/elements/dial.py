"""Dial: from a target to somebody who answers there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Self

import structlog

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import (
    REFUSALS,
    Internal,
    MeshError,
    Outdated,
    TimedOut,
    Unanswered,
    Unavailable,
    Unreachable,
)
from nsmesh.core.farewell import ABSENT
from nsmesh.core.journalling import Journal
from nsmesh.core.life import LIFE, OWN, REACHED
from nsmesh.core.living import Living
from nsmesh.core.peering import DIALLED, HOP, NEXT_HOP, TARGET, TARGET_NAME, Dialled, Peers, closing
from nsmesh.core.place import PLACE, Place, is_taken_over, name_of, take_back
from nsmesh.core.reaching import TRIES, Reaching
from nsmesh.core.unclosed import OWED, TRY, Unclosed
from nsmesh.model.copying import copy_of
from nsmesh.model.fileurl import GONE
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    Entry,
    Found,
    MonitorScopeSelector,
    NetworkServiceRequest,
    Query,
)
from nsmesh.rpc.files import HELD, Files
from nsmesh.rpc.receiver import Receiver

log = structlog.get_logger()


class Dial(Element):
    """Reaches the target of a call and puts its Handler into the call.

    Where the connection to the target ends before the answer comes, the call is made again on a new one, at
    once: to ask twice under one connection id is to ask once. A first Request is closed there before. Nobody
    is waited for: a target that refuses to be dialled is not there, and what is said then is what became of
    the last try.

    The target is ``TARGET`` of the call, else the constructor's, else (a re-request) where the connection
    lives. When it differs from where the connection lives, the connection is closed there first; not where an
    earlier process had but a descriptor of it. ``timeout``
    in seconds bounds the dial alone; None leaves it to the deadline of the call. Where whoever listened has
    died, and his supervisor holds the socket for the next one, he is waited for a little longer.

    What the next hop did not answer, a Close or the undo of a Request, it is asked again and again, until its
    tokens have ended; with a ``journal`` also by the process that comes after us. ``successor`` returns where
    a next hop is now, by its name, or nothing: who starts again may have another socket.

    After:  Begin
    Writes: DIALLED in the call, NEXT_HOP in the state, HOP of the server half
    Leaves: the target, per connection; a Close that was not answered, and the socket where it is owed
    Close:  goes to where the connection lives; OK when nobody is there any more
    """

    after = ("Begin", "BeginClient", "Heal", "Refresh")

    def __init__(
        self,
        peers: Peers | None = None,
        *,
        target: Handler | str | None = None,
        timeout: float | None = 5.0,
        journal: Journal | None = None,
        successor: Callable[[str], Awaitable[str]] | None = None,
        files: Files = HELD,
    ) -> None:
        self._successor = successor
        self._target = target
        self._reaching = Reaching(peers, timeout, lambda: self.scope.clock)
        self._next: Handler = Dialled()
        self._sockets = Receiver(files)
        self.unclosed = Unclosed(self._close_again, lambda: self.scope, journal, self._sockets)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Let be counted what is owed to next hops; let go of their sockets on leaving."""
        try:
            with OWED.reading(self.unclosed.counts):
                yield self
        finally:
            self._sockets.close()

    async def entered(self, next: Handler) -> None:
        """Close what an earlier process of ours asked for, without an answer that we know of."""
        self._next = next
        self.unclosed.take_up(self._lives)

    def _begin(self) -> Begin | None:
        return next((one for one in self.companions if isinstance(one, Begin)), None)

    def _lives(self, target: str, connection_id: str) -> bool:
        begin = self._begin()
        life = begin.life(connection_id) if begin is not None else None
        place = life.state.get(PLACE) if isinstance(life, Living) else None
        return place is not None and place.target == target

    async def abandon(self, call: Call, connection: Connection) -> None:
        """Close where it was granted."""
        place = call.state.get(PLACE)
        if place is not None and isinstance(place.target, str):
            self.unclosed.owe(place.target, connection)

    def _where(self, call: Call) -> Handler | str:
        target = call.get(TARGET) or self._target
        if target is None:
            place = call.state.get(PLACE)
            if place is None:
                raise Internal(
                    "nobody said where this call shall go", remedy="put a discover element or a fixed target"
                )
            target = place.target
        return target

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Dial, then pass on; leave an old place first."""
        target, connection_id = self._where(call), request.connection.id
        place = call.state.get(PLACE)
        new = place is None or place.target != target
        if place is not None and new:
            await self._move(call, place, request.connection, next)
            call.state.set(PLACE, Place(target))  # also when the dial fails: at the old one it lives no more

        url = target if new and isinstance(target, str) else ""
        first, tries = bool(url) and not is_taken_over(call, place), 0

        async def at(handler: Handler, request: NetworkServiceRequest) -> Connection:
            nonlocal tries
            call.state.set(PLACE, Place(target))
            call.state.set(NEXT_HOP, handler)
            hop = call.get(HOP)
            if hop is not None:
                hop.handler = handler
            there = call.put(DIALLED, handler)
            if first:
                await self.unclosed.ask(url, request.connection, call.get(TARGET_NAME) or "")
                if tries:
                    await take_back(there, request.connection, next)
            elif url:
                await self.unclosed.instead(url, connection_id)
            tries += 1
            return await next.request(there, request)

        try:
            answer = await self._reaching.answered(call, target, request, at)
        except MeshError as error:
            if place is None and error.status in REFUSALS and call.state.get(REACHED) is None:
                # it said no to a first Request: it holds nothing that a Close could end
                call.state.pop(PLACE)
                self._settled(target, connection_id)
            raise
        if url:
            self.unclosed.answered(url, connection_id)
        return answer

    def _settled(self, target: Handler | str, connection_id: str) -> None:
        if isinstance(target, str):
            self.unclosed.settled(target, connection_id)

    async def _move(self, call: Call, place: Place, connection: Connection, next: Handler) -> None:
        if place.target == GONE:  # whoever it was, it is on its way to the new one by its name alone
            return
        log.info("target changed: close at the old one", connection=connection.id, old=name_of(place.target))
        left = call.remaining()
        brief = call if left is None else call.within(left / 2)  # it is asked again, if it is silent
        try:
            await self._close_at(brief, place.target, copy_of(connection), next)
        except MeshError as error:
            log.warning("close at the old target failed", connection=connection.id, error=str(error))

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Close where the connection lives; one that got nowhere needs no Close."""
        place = call.state.get(PLACE)
        if place is not None:
            target = place.target if place.target != GONE else call.get(TARGET) or GONE
            await self._close_at(call, target, connection, next)
        elif call.state.get(LIFE) is None or is_taken_over(call, place):
            await self._close_at(call, self._where(call), connection, next)

    async def _close_at(
        self, call: Call, target: Handler | str, connection: Connection, next: Handler
    ) -> None:
        """Close at a target; what it does not answer is owed to it from now on."""
        known = copy_of(connection)
        try:
            await self._ask_to_close(call, target, connection, next)
        except BaseException as error:
            if isinstance(target, str) and not (isinstance(error, MeshError) and error.status in REFUSALS):
                self.unclosed.owe(target, known, lost=isinstance(error, Unreachable))
            if not isinstance(error, Unavailable):
                raise
            if not call.get(ABSENT):
                log.info("close: nobody is there", connection=known.id, at=name_of(target), error=str(error))
        else:
            self._settled(target, known.id)

    async def _ask_to_close(
        self, call: Call, target: Handler | str, connection: Connection, next: Handler
    ) -> None:
        if call.get(ABSENT):
            raise Unavailable(f"whoever answered at {name_of(target)} has died")
        await self._reaching.answered(
            call,
            target,
            connection,
            lambda handler, connection: next.close(call.put(DIALLED, handler), connection),
        )

    async def _close_again(self, target: str, name: str, connection: Connection) -> None:
        """Make one more try at what is owed; ``name``: of who was asked, where that is known."""
        call = Call(peer=Peer(in_process=True), values={OWN: True}).within(TRY)
        try:
            async with asyncio.timeout(TRY):
                try:
                    await self._ask_to_close(call, target, copy_of(connection), self._next)
                except Unavailable as error:
                    await self._close_at_successor(call, target, name, connection, error)
        except TimeoutError as error:
            raise TimedOut(f"{target} did not answer a Close in {TRY:g} s") from error

    async def _close_at_successor(
        self, call: Call, target: str, name: str, connection: Connection, error: Unavailable
    ) -> None:
        """Close at who has come in the place of a next hop, with its journal, unless it lives on there."""
        begin = self._begin()
        if self._successor is None or begin is None or not name:
            raise error
        other = await self._successor(name)
        if not other or other == target:
            raise error
        async with begin.turns.turn(connection.id):
            if not self._lives(other, connection.id):
                await self._ask_to_close(call, other, connection, self._next)

    async def _with_handler(self, call: Call) -> Call:
        return call.put(DIALLED, await self._reaching.dial(call, self._where(call)))

    async def monitor(
        self, call: Call, selector: MonitorScopeSelector, next: Handler
    ) -> AsyncIterator[ConnectionEvent]:
        """Dial, then pass on."""
        async with closing(next.monitor(await self._with_handler(call), selector)) as events:
            async for event in events:
                yield event

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Dial, then pass on; once more where the answer shows that the peer has another key by now."""
        spare, onward = copy_of(entry), await self._with_handler(call)
        try:
            return await next.register(onward, entry)
        except Outdated as error:
            handler = onward.get(DIALLED)
            if handler is None or not self._reaching.renewed(self._where(call), handler, error):
                raise
        return await next.register(await self._with_handler(call), spare)

    async def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:
        """Dial, then pass on; once more where the connection ends before anything was found."""
        some = False
        for left in reversed(range(TRIES)):
            try:
                async with closing(next.find(await self._with_handler(call), query)) as found:
                    async for item in found:
                        some = True
                        yield item
            except Unanswered:
                if some or not left:
                    raise
            else:
                return

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Dial, then pass on."""
        await next.unregister(await self._with_handler(call), entry)
