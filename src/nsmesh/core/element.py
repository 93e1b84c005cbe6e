"""Handlers, elements and chains: a role is a list of small elements."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Protocol, Self

from nsmesh.core.call import Call, State
from nsmesh.core.clock import Clock
from nsmesh.core.errors import Unimplemented
from nsmesh.core.observing import observed_link, watched
from nsmesh.core.scope import Scope
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    Entry,
    Found,
    MonitorScopeSelector,
    NetworkServiceRequest,
    Query,
)


class Handler(Protocol):
    """Whatever can be asked: a chain, a stub of a remote peer, a peer in this process, a fake.

    The caller gives its message away: a handler may change what it is given. What comes back belongs to the
    caller. All verbs raise :class:`nsmesh.core.errors.MeshError`.
    """

    async def request(self, call: Call, request: NetworkServiceRequest) -> Connection:
        """Make or refresh a connection and return it as it now is."""
        ...

    async def close(self, call: Call, connection: Connection) -> None:
        """End a connection; one that is not known is ended already."""
        ...

    def monitor(self, call: Call, selector: MonitorScopeSelector) -> AsyncIterator[ConnectionEvent]:
        """Yield the state of the selected connections at once, then each change, until cancelled."""
        ...

    async def register(self, call: Call, entry: Entry) -> Entry:
        """Register a service or endpoint and return it as it is stored."""
        ...

    def find(self, call: Call, query: Query) -> AsyncIterator[Found]:
        """Yield what matches the template; with ``watch`` then each change, until cancelled."""
        ...

    async def unregister(self, call: Call, entry: Entry) -> None:
        """Remove a service or endpoint; one that is not known is removed already."""
        ...


class Element:
    """Passes every verb on; a subclass overrides what it has a say in.

    ``after`` names the element classes (or their bases) that must stand further out in the same chain, if
    they stand in it at all. ``scope`` is the owner of background work and ``companions`` are all elements of
    the chain; the chain sets both, so an element belongs to one chain.
    """

    after: tuple[str, ...] = ()
    scope: Scope = Scope("unchained")
    companions: tuple[Element, ...] = ()

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """See :meth:`Handler.request`."""
        return await next.request(call, request)

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """See :meth:`Handler.close`."""
        await next.close(call, connection)

    def monitor(
        self, call: Call, selector: MonitorScopeSelector, next: Handler
    ) -> AsyncIterator[ConnectionEvent]:
        """See :meth:`Handler.monitor`."""
        return next.monitor(call, selector)

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """See :meth:`Handler.register`."""
        return await next.register(call, entry)

    def find(self, call: Call, query: Query, next: Handler) -> AsyncIterator[Found]:
        """See :meth:`Handler.find`."""
        return next.find(call, query)

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """See :meth:`Handler.unregister`."""
        await next.unregister(call, entry)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Hold what the element needs while its chain runs; most need nothing."""
        yield self

    async def entered(self, next: Handler) -> None:
        """Hear that all elements of the chain run; ``next`` is what follows this one."""

    async def resume(self, call: Call, connection: Connection) -> None:
        """Take up a connection that an earlier process of ours was granted; most have nothing to take up.

        ``call.state`` has what the keys with a codec kept, and ``LIFE``. Nothing was asked of the next hop
        yet. Raises MeshError for what the next Request has to put right.
        """

    async def abandon(self, call: Call, connection: Connection) -> None:
        """Hear of a connection that an earlier process of ours was granted and never passed on.

        Nobody in front of us knows of it, so it does not live here; ``call.state`` is as in :meth:`resume`.
        """

    def keeps(self) -> Collection[str]:
        """Return the ids of the connections for which it keeps something that is not in ``call.state``."""
        return ()

    async def forget(self, connection_id: str, state: State) -> None:
        """Let go of what is kept for a connection whose Close may not have come this far.

        ``state`` is the one of the connection. What is kept for none is forgotten already.
        """


class Tail:
    """The end of a chain that answers by itself: a Request is granted as it came."""

    async def request(self, call: Call, request: NetworkServiceRequest) -> Connection:  # noqa: ARG002 - the face asks for it
        """Return the connection that was asked for."""
        return request.connection

    async def close(self, call: Call, connection: Connection) -> None:
        """Do nothing."""

    async def monitor(
        self,
        call: Call,  # noqa: ARG002 - the face asks for it
        selector: MonitorScopeSelector,  # noqa: ARG002 - the face asks for it
    ) -> AsyncIterator[ConnectionEvent]:
        """Refuse: no element of this chain keeps connections."""
        raise Unimplemented("this component has no monitor")
        yield ConnectionEvent()  # pragma: no cover - makes this a generator

    async def register(self, call: Call, entry: Entry) -> Entry:  # noqa: ARG002 - the face asks for it
        """Return the entry as it came."""
        return entry

    async def find(self, call: Call, query: Query) -> AsyncIterator[Found]:  # noqa: ARG002 - the face asks for it
        """Find nothing."""
        return
        yield  # pragma: no cover - makes this a generator

    async def unregister(self, call: Call, entry: Entry) -> None:
        """Do nothing."""


_VERBS = ("request", "close", "monitor", "register", "find", "unregister")


class _Link:
    """One element bound to what follows it, verb by verb.

    A verb that an element only passes on goes to what follows at once, and each other one straight into the
    element: a Request wakes up once for each of the calls that it is in, whenever anything comes for it.
    """

    __slots__ = ("close", "element", "find", "monitor", "next", "register", "request", "unregister")

    request: Callable[[Call, NetworkServiceRequest], Coroutine[Any, Any, Connection]]
    close: Callable[[Call, Connection], Coroutine[Any, Any, None]]
    monitor: Callable[[Call, MonitorScopeSelector], AsyncIterator[ConnectionEvent]]
    register: Callable[[Call, Entry], Coroutine[Any, Any, Entry]]
    find: Callable[[Call, Query], AsyncIterator[Found]]
    unregister: Callable[[Call, Entry], Coroutine[Any, Any, None]]

    def __init__(self, element: Element, next: Handler) -> None:
        self.element = element
        self.next = next
        for verb in _VERBS:
            setattr(self, verb, self._bound(verb))

    def _bound(self, verb: str) -> Callable[..., Any]:
        own = getattr(self.element, verb)
        if isinstance(self.next, _Link) and getattr(own, "__func__", None) is getattr(Element, verb):
            passed: Callable[..., Any] = getattr(self.next, verb)
            return passed
        return partial(own, next=self.next)


_running: set[Chain] = set()


def running_chains() -> list[Chain]:
    """Return the chains of this process that run now, by name."""
    return sorted(_running, key=lambda one: one.name)


class OrderError(Exception):
    """A chain was built in an order that one of its elements cannot work in."""


class Chain(_Link):
    """A list of elements that is a Handler. Enter :meth:`running` before the first verb."""

    __slots__ = ("_follows", "elements", "name", "scope")

    def __init__(self, name: str, elements: Sequence[Element], end: Handler, clock: Clock | None) -> None:
        self.name = name
        self.elements = tuple(elements)
        self.scope = Scope(name, clock)
        _check_order(name, self.elements)
        for element in self.elements:
            element.scope = self.scope
            element.companions = self.elements
        handler: Handler = end
        self._follows: list[tuple[Element, Handler]] = []
        for element in reversed(self.elements[1:]):
            self._follows.append((element, handler))
            handler = observed_link(name, element, _Link(element, handler))
        if self.elements:
            self._follows.append((self.elements[0], handler))
        first = self.elements[0] if self.elements else Element()
        if watched():  # the first element is surrounded as well: it moves behind one that passes all on
            handler = observed_link(name, first, _Link(first, handler))
            first = Element()
        super().__init__(first, handler)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Own the background work of all elements: on leaving, every task and timer is gone."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.scope)
            for element in self.elements:
                await stack.enter_async_context(element.running())
            _running.add(self)
            stack.callback(_running.discard, self)
            for element, follows in reversed(self._follows):
                await element.entered(follows)
            yield self


def _check_order(name: str, elements: Sequence[Element]) -> None:
    kinds = [{kind.__name__ for kind in type(element).__mro__} for element in elements]
    for position, element in enumerate(elements):
        for wanted in element.after:
            in_front = any(wanted in names for names in kinds[:position])
            if not in_front and any(wanted in names for names in kinds[position + 1 :]):
                raise OrderError(f"chain {name}: {type(element).__name__} must stand after {wanted}")


def chain(
    *elements: Element, end: Handler | None = None, name: str = "chain", clock: Clock | None = None
) -> Chain:
    """Compose ``elements``, outermost first, in front of ``end`` (:class:`Tail` by default).

    Raises :class:`OrderError` where an element stands before one that its ``after`` names.
    """
    return Chain(name, elements, end or Tail(), clock)
