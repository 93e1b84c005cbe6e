"""Begin: one event at a time for each connection, and the memory of what the chain last returned.

The contract that all elements behind a ``Begin`` may count on:

* For one connection id, Request, refresh, re-request and Close are served one after another, in the order
  in which they came. Other ids do not wait.
* ``call.state`` belongs to this connection and this half; it is new for a first Request and dropped with the
  connection.
* Close gets the connection that the chain last returned, whatever the caller wrote; a Close of an unknown id
  does not reach them.
* When a *first* Request fails or is cancelled, the chain gets one Close with the furthest answer known
  (:data:`REACHED`, else the request's own connection), so an element undoes in ``close`` whatever it did in
  ``request``, even half of it. A failed refresh changes nothing: the old connection is kept.
* An element may keep ``call.state.get(LIFE)`` and ask it for a re-request or a Close, at any time later.
* The state that is returned is UP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Protocol

from nsmesh.core.call import Call, Key, State
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Invalid, MeshError
from nsmesh.model.messages import Connection, Entry, NetworkServiceRequest
from nsmesh.model.messages import State as Condition

BUDGET = 15.0
"""Seconds that a re-request, a Close or an undo of our own may take."""


class Life(Protocol):
    """What an element may ask of the connection that it serves, later, from the background."""

    @property
    def connection(self) -> Connection | None:
        """The connection as the chain last returned it; None before and after its life. Not to be changed."""
        ...

    async def rerequest(self, *, reselect: bool = False) -> Connection | None:
        """Send the last connection through the chain again; None if it ended meanwhile.

        ``reselect`` closes it first and lets endpoint and mechanism be chosen anew.
        """
        ...

    async def close(self) -> None:
        """Close the connection from here down; nothing happens if it ended meanwhile."""
        ...


LIFE: Key[Life] = Key("life")
REACHED: Key[Connection] = Key("reached")
"""What the next hop answered, set as soon as it is known: the undo of a failed Request needs it."""


class _Life:
    __slots__ = ("begin", "call", "connection", "gone", "lock", "next", "request", "state", "waiting")

    def __init__(self, begin: Begin, next: Handler) -> None:
        self.begin = begin
        self.next = next
        self.lock = asyncio.Lock()
        self.waiting = 0
        self.gone = False
        self.connection: Connection | None = None
        self.request: NetworkServiceRequest | None = None
        self.call = Call()
        self.renew()

    def renew(self) -> None:
        self.state = State()
        self.state.set(LIFE, self)

    async def rerequest(self, *, reselect: bool = False) -> Connection | None:
        async with self.lock:
            if self.gone or self.connection is None or self.request is None:
                return None
            again = NetworkServiceRequest()
            again.CopyFrom(self.request)
            again.connection.CopyFrom(self.connection)
            if reselect:
                await self.begin.end(self, quiet=True)
                again.connection.ClearField("mechanism")
                again.connection.network_service_endpoint_name = ""
                again.connection.state = Condition.RESELECT_REQUESTED
            return await self.begin.serve(self, self.call.fresh().within(BUDGET), again)

    async def close(self) -> None:
        async with self.lock:
            if not self.gone and self.connection is not None:
                await self.begin.leave(self, self.call.fresh().within(BUDGET), self.connection)


class Begin(Element):
    """Serialises per connection id (Request, Close) and per entry name (Register, Unregister).

    After:  UpdatePath
    Leaves: one life per connection, until its Close
    """

    after = ("UpdatePath",)

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._entries: dict[str, tuple[asyncio.Lock, int]] = {}

    @property
    def connections(self) -> list[Connection]:
        """The living connections, as the chain last returned them."""
        return [life.connection for life in self._lives.values() if life.connection is not None]

    def life(self, connection_id: str) -> Life | None:
        """Return the life of a connection, or None."""
        return self._lives.get(connection_id)

    def merge(self, life: _Life, request: NetworkServiceRequest) -> None:
        """Bring a new Request of a living connection into line with what is known; servers take it as it is."""

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Serve one Request; see the module's contract."""
        connection_id = request.connection.id
        if not connection_id:
            raise Invalid("the Request has no connection id", remedy="set connection.id and path segment 0")
        while True:
            life = self._lives.get(connection_id)
            if life is None:
                life = self._lives[connection_id] = _Life(self, next)
            async with life.lock:
                if life.gone:
                    continue  # it ended while this Request waited: begin a new life
                self.merge(life, request)
                if request.connection.state == Condition.RESELECT_REQUESTED and life.connection is not None:
                    await self.end(life, quiet=True)
                return await self.serve(life, call, request)

    async def serve(self, life: _Life, call: Call, request: NetworkServiceRequest) -> Connection:
        """Pass a Request on with the lock held; keep what comes back, undo what failed."""
        connection_id = request.connection.id
        kept = NetworkServiceRequest()
        kept.CopyFrom(request)
        try:
            connection = await life.next.request(replace(call, state=life.state), request)
        except BaseException as error:
            if life.connection is None:
                reached = life.state.get(REACHED) or kept.connection
                await self._undo(life, connection_id, call, reached, error)
            raise
        connection.state = Condition.UP
        life.call = call
        life.request = kept
        life.connection = Connection()
        life.connection.CopyFrom(connection)
        return connection

    async def _undo(
        self, life: _Life, connection_id: str, call: Call, reached: Connection, error: BaseException
    ) -> None:
        async def work() -> None:
            try:
                await life.next.close(replace(call.fresh().within(BUDGET), state=life.state), reached)
            except MeshError as second:
                error.add_note(f"and its undo failed: {second}")

        life.gone = True
        try:
            await self.finish(work())
        finally:
            self._forget(connection_id, life)

    async def end(self, life: _Life, *, quiet: bool) -> None:
        """Close the chain below with the lock held, but keep the life: a new Request follows at once."""
        connection, life.connection = life.connection, None
        if connection is None:
            return
        call = replace(life.call.fresh().within(BUDGET), state=life.state)
        try:
            await self.finish(life.next.close(call, connection))
        except MeshError:
            if not quiet:
                raise
        finally:
            life.renew()

    async def leave(self, life: _Life, call: Call, connection: Connection) -> None:
        """Close the chain below and end the life, whatever the chain says to it."""
        connection_id = connection.id
        life.gone = True
        try:
            await self.finish(life.next.close(replace(call, state=life.state), connection))
        finally:
            life.connection = None
            self._forget(connection_id, life)

    def _forget(self, connection_id: str, life: _Life) -> None:
        if self._lives.get(connection_id) is life:
            del self._lives[connection_id]

    async def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """See ``work`` through to its end, even when the caller is cancelled meanwhile."""
        if not self.scope.running:
            await work
            return
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.scope.spawn(_carry(work, outcome), name="begin: close")
        cancelled: asyncio.CancelledError | None = None
        while not outcome.done():
            try:
                await asyncio.wait((outcome,))
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            if not outcome.cancelled():
                outcome.exception()  # seen: the caller's own end goes before it
            raise cancelled
        outcome.result()

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:  # noqa: ARG002
        """Serve one Close; an unknown id is closed already."""
        life = self._lives.get(connection.id)
        if life is None:
            return
        async with life.lock:
            if life.gone or life.connection is None:
                return
            stored = Connection()
            stored.CopyFrom(life.connection)
            await self.leave(life, call, stored)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Serve one Register at a time for each name."""
        async with self._entry(entry):
            return await next.register(call, entry)

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Serve one Unregister at a time for each name."""
        async with self._entry(entry):
            await next.unregister(call, entry)

    def _entry(self, entry: Entry) -> _EntryLock:
        return _EntryLock(self._entries, entry.name)


async def _carry(work: Coroutine[Any, Any, None], outcome: asyncio.Future[None]) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - handed to the waiter
        outcome.set_exception(error)
    except BaseException:
        outcome.cancel()
        raise
    else:
        outcome.set_result(None)


class BeginClient(Begin):
    """A Begin of the client's half: a new Request of a living connection is merged with what was returned.

    The user's changes (service, endpoint, labels, context against the *last request*) win; path, mechanism
    and everything else come from the last answer.
    """

    def merge(self, life: _Life, request: NetworkServiceRequest) -> None:
        """See the class."""
        if life.connection is None or life.request is None:
            return
        wanted, last = request.connection, life.request.connection
        merged = Connection()
        merged.CopyFrom(life.connection)
        if wanted.network_service != last.network_service:
            merged.network_service = wanted.network_service
        if wanted.network_service_endpoint_name != last.network_service_endpoint_name:
            merged.network_service_endpoint_name = wanted.network_service_endpoint_name
        if wanted.labels != last.labels:
            merged.ClearField("labels")
            merged.labels.update(wanted.labels)
        if wanted.context != last.context:
            merged.context.CopyFrom(wanted.context)
        if wanted.HasField("mechanism"):
            merged.mechanism.CopyFrom(wanted.mechanism)
        merged.state = wanted.state
        request.connection.CopyFrom(merged)


class _EntryLock:
    """A lock by name that is forgotten when nobody holds or waits for it."""

    __slots__ = ("_locks", "_name")

    def __init__(self, locks: dict[str, tuple[asyncio.Lock, int]], name: str) -> None:
        self._locks = locks
        self._name = name

    async def __aenter__(self) -> None:
        lock, users = self._locks.get(self._name, (asyncio.Lock(), 0))
        self._locks[self._name] = (lock, users + 1)
        try:
            await lock.acquire()
        except BaseException:
            self._drop()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._locks[self._name][0].release()
        self._drop()

    def _drop(self) -> None:
        lock, users = self._locks[self._name]
        if users == 1:
            del self._locks[self._name]
        else:
            self._locks[self._name] = (lock, users - 1)
