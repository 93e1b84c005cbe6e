"""Begin: one event at a time for each connection, and the memory of what the chain last returned.

The contract that all elements behind a ``Begin`` may count on:

* For one connection id, Request, refresh, re-request and Close are served one after another, in the order
  in which they came. Other ids do not wait.
* ``call.state`` belongs to this connection and this half; it is new for a first Request and dropped with the
  connection. A reselect is an end and a new first Request; in a Begin with ``passes_reselects`` it is a
  refresh that lets endpoint and mechanism be chosen anew, and the end of the connection if it fails.
* Close gets the connection that the chain last returned, whatever the caller wrote; a Close of an unknown id
  does not reach them. A Close that has begun is seen through to its end (at most :data:`BUDGET`), also when
  its caller is cancelled meanwhile. After one that failed each element of the chain is told to ``forget``
  the connection, since the Close may not have come to it.
* When a *first* Request fails or is cancelled, the chain gets one Close with the furthest answer known
  (:data:`REACHED`, else the request's own connection), so an element undoes in ``close`` whatever it did in
  ``request``, even half of it. Where time ran out, it is given no more than :data:`HASTE` to be answered:
  the error must reach who asked. A failed refresh changes nothing: the old connection is kept.
* An element may keep ``call.state.get(LIFE)`` and ask it for a re-request or a Close, at any time later.
* The state that is returned is UP.

The keys and the limits named here are in :mod:`nsmesh.core.life`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import structlog

from nsmesh.core.askers import Askers, is_anothers
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Invalid, MeshError, TimedOut
from nsmesh.core.journalling import Journal, record_of, resume
from nsmesh.core.life import ASKED, BUDGET, DENIED, HASTE, REACHED, Life
from nsmesh.core.living import Living
from nsmesh.core.metrics import Gauge
from nsmesh.core.turns import Turns
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, Entry, NetworkServiceRequest
from nsmesh.model.messages import State as Condition
from nsmesh.model.path import fitted, renew_tokens

log = structlog.get_logger()

CONNECTIONS = Gauge("nsm_begin_connections", "Connections that are alive in a chain.", ("chain",))
ORPHANS = Gauge(
    "nsm_begin_orphans", "What elements of a chain keep for connections that are gone: 0 always.", ("chain",)
)


class Begin(Element):
    """Serialises per connection id (Request, Close) and per entry name (Register, Unregister).

    With a ``journal`` the lives outlive the process: what was granted is written before the answer leaves,
    and the chain takes it up when it starts. ``half_of``: name of the server's chain, in a client's half.
    ``passes_reselects``: the next hop ends and begins anew on one reselecting Request, as the field's servers
    do; it is not sent a Close before.

    After:  UpdatePath
    Leaves: one life per connection, until its Close
    """

    after = ("UpdatePath",)

    def __init__(
        self, journal: Journal | None = None, *, half_of: str = "", passes_reselects: bool = False
    ) -> None:
        self.passes_reselects = passes_reselects
        self._journal = journal
        self._half_of = half_of
        self._lives: dict[str, Living] = {}
        self._askers = Askers()
        self.turns = Turns()
        self._entries = Turns()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Let the living connections be counted, and what is kept for others."""
        chain = (self.scope.name,)
        with (
            CONNECTIONS.reading(lambda: {chain: len(self._lives)}),
            ORPHANS.reading(lambda: {chain: len(self.orphans())}),
        ):
            yield self

    async def entered(self, next: Handler) -> None:
        """Take up what the journal has."""
        if self._journal is not None:
            await resume(self, self._journal, next, half_of=self._half_of)

    def take_up(self, life: Living) -> None:
        """Have a connection live that an earlier process of ours had."""
        self._lives[life.id] = life
        if life.connection is not None and not self._half_of:
            self._askers.put(life.peer, life.connection)

    def known_to(self, peer: Peer, connection: Connection) -> Living | None:
        """Return the life that whoever comes with ``connection`` has here under another id of ours.

        He stands in front of us with one segment, under one id, and so has one connection here. Who asks for
        another with it has not heard what became of that one; who closes it was never told our id.
        """
        if connection.id in self._lives:
            return None
        return self._lives.get(self._askers.of(peer, connection))

    def orphans(self) -> list[tuple[str, str]]:
        """Return element and id of whatever the chain keeps for a connection that does not live."""
        return [
            (type(element).__name__, key)
            for element in self.companions
            for key in sorted(element.keeps())
            if key not in self._lives
        ]

    @property
    def connections(self) -> list[Connection]:
        """Copies of the living connections, as the chain last returned them."""
        known = (life.connection for life in self._lives.values())
        return [connection for connection in known if connection is not None]

    def life(self, connection_id: str) -> Life | None:
        """Return the life of a connection, or None."""
        return self._lives.get(connection_id)

    def is_anothers(self, peer: Peer, connection: Connection) -> bool:
        """Whether ``peer`` brings a living connection that somebody else requested, from another place."""
        life = self._lives.get(connection.id)
        return life is not None and is_anothers(peer, connection, life)

    def holds(self, life: Living) -> bool:
        """Return whether this life still goes on."""
        return self._lives.get(life.id) is life

    def merge(self, life: Living, request: NetworkServiceRequest) -> None:
        """Bring a new Request of a living connection into line with what is known; servers take it as is."""

    def strip(self, life: Living, request: NetworkServiceRequest) -> None:  # noqa: ARG002 - see begin_client
        """Leave of a granted Request what a re-request needs besides the answer: the preferences."""
        request.ClearField("connection")

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Serve one Request; see the module's contract."""
        connection_id = request.connection.id
        if not connection_id:
            raise Invalid("the Request has no connection id", remedy="set connection.id and path segment 0")
        async with self.turns.turn(connection_id):
            life = self._lives.get(connection_id)
            if life is None:
                life = self._lives[connection_id] = Living(self, connection_id, next)
                if not self._half_of:
                    self._askers.put(call.peer, request.connection)
            try:
                self.merge(life, request)
                if request.connection.state == Condition.RESELECT_REQUESTED and not self.passes_reselects:
                    await self.end(life, call)
                answer = await self.serve(life, call, request)
            finally:
                if not life.up and life.wanted is None:
                    self._forget(life)
        await self._written(call)
        return answer

    async def _written(self, call: Call) -> None:
        """Let no answer leave the process before the journal has it; one within the process need not wait."""
        if self._journal is not None and not call.peer.in_process:
            await self._journal.written()

    async def serve(
        self, life: Living, call: Call, request: NetworkServiceRequest, *, wished: bool = True
    ) -> Connection:
        """Pass a Request on in its turn; keep what comes back, undo what failed.

        ``wished``: the caller asks, and not we again.
        """
        kept, reselects = copy_of(request), request.connection.state == Condition.RESELECT_REQUESTED
        try:
            connection = await life.next.request(call.on(life.state), request)
        except BaseException as error:
            denied = life.state.pop(DENIED)
            if not life.up or (reselects and not denied):
                known = life.state.get(REACHED) or life.connection or kept.connection
                await self._undo(life, call, known, error)
            raise
        connection.state = Condition.UP
        life.peer = call.peer
        life.connection = fitted(connection, kept.connection)
        if wished:
            self.strip(life, kept)
            life.request = kept
        life.state.pop(REACHED)  # it was for an undo
        life.wanted = None
        self.keep(life)
        return connection

    def keep(self, life: Living) -> None:
        """Have the journal know a life as it is now; one without a connection is not in it."""
        if self._journal is not None and (record := record_of(life)) is not None:
            self._journal.put(self.scope.name, life.id, record)

    async def _undo(self, life: Living, call: Call, reached: Connection, error: BaseException) -> None:
        onward = life.call(call.peer)
        if isinstance(error, TimedOut):  # who asked has little time left to hear who was silent
            onward = onward.within(HASTE)
        try:
            await self._close_below(life, onward, reached)
        except MeshError as second:
            error.add_note(f"and its undo failed: {second}")
        finally:
            life.connection = None
            life.renew()

    async def end(self, life: Living, call: Call | None = None) -> None:
        """Close the chain below in its turn, but keep the life: a new Request follows at once.

        ``call`` is the caller's, who needs the same right as for a Close: :data:`DENIED` raises and ends
        nothing. What cannot be closed otherwise ends with its tokens; the new Request does not wait for that.
        """
        connection = life.connection
        if connection is None:
            return
        denied = False
        try:
            await self._close_below(life, call or life.call(), connection)
        except MeshError as error:
            denied = life.state.pop(DENIED) is True
            if denied:
                raise
            log.warning("close before a reselect failed", connection=life.id, error=str(error))
        finally:
            if not denied:
                life.connection = None
                life.renew()

    async def leave(self, life: Living, call: Call) -> None:
        """Close the chain below in its turn and end the life, whatever the chain says to it.

        Only a Close that was :data:`DENIED` ends nothing.
        """
        connection = life.connection or (copy_of(life.wanted.connection) if life.wanted else None)
        assert connection is not None
        asked = call.get(ASKED)
        if self._half_of and asked is not None:  # our server's half has seen to it that they are right
            renew_tokens(connection.path, asked.path, connection.path.index)
        try:
            await self._close_below(life, call, connection)
        finally:
            if not life.state.pop(DENIED):
                life.connection = life.wanted = None
                self._forget(life)

    def _forget(self, life: Living) -> None:
        del self._lives[life.id]
        self._askers.drop(life.id)
        life.over()
        if self._journal is not None:
            self._journal.drop(self.scope.name, life.id)

    async def _close_below(self, life: Living, call: Call, connection: Connection) -> None:
        async def work() -> None:
            try:
                async with asyncio.timeout(BUDGET):
                    await life.next.close(call.within(BUDGET).on(life.state), connection)
            except TimeoutError as error:
                raise TimedOut(
                    f"the Close of connection {life.id} was not finished in {BUDGET:g} s",
                    remedy="what is left of it ends with its tokens",
                ) from error

        async def thoroughly() -> None:
            try:
                await work()
            except Exception:
                if not life.state.get(DENIED):
                    for element in self.companions:
                        await element.forget(life.id, life.state)
                raise

        await self.scope.finish(thoroughly, name=f"close {life.id}")

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:  # noqa: ARG002 - the face asks for it
        """Serve one Close; an unknown id is closed already."""
        async with self.turns.turn(connection.id):
            life = self._lives.get(connection.id)
            if life is not None:
                await self.leave(life, call.put(ASKED, connection))
        await self._written(call)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Serve one Register at a time for each name."""
        async with self._entries.turn(entry.name):
            return await next.register(call, entry)

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Serve one Unregister at a time for each name."""
        async with self._entries.turn(entry.name):
            await next.unregister(call, entry)
