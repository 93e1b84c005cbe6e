"""From one process to the next: where a call goes, and what was reached there.

A client chain reads ``..., Dial(peers), ClientToken(tokens), ..., end=Dialled()``: ``Dial`` finds out where,
elements behind it may look at who answers there, and ``Dialled`` hands the call over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Generic, Protocol, TypeVar

from nsmesh.core.call import Call, Key, Peer
from nsmesh.core.element import Handler
from nsmesh.core.errors import Internal
from nsmesh.core.life import LIFE, OWN, REACHED
from nsmesh.core.passing import PASSING
from nsmesh.core.tokens import OUTGOING
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    ConnectionEvent,
    Entry,
    Found,
    MonitorScopeSelector,
    NetworkServiceRequest,
    Query,
)
from nsmesh.model.path import closable

T = TypeVar("T")


class Peers(Protocol):
    """Finds the Handler of a remote peer; connections stay, one per neighbour."""

    async def get(self, url: str) -> Handler:
        """Return a connected Handler; its ``peer`` (see :class:`Reached`) says who is there.

        Raises :class:`nsmesh.core.errors.Unavailable` when nobody answers, and ``Unauthorized`` when who
        answers cannot prove who it is. Who calls bounds the time.
        """
        ...


class Reached(Protocol):
    """What the Handler of a remote peer can say besides the verbs."""

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""
        ...


def at_hand(peers: Peers, url: str) -> Handler | None:
    """Return the Handler at ``url`` where nobody need wait for it, else None: ``get`` says."""
    ask: Callable[[str], Handler | None] | None = getattr(peers, "at_hand", None)
    return ask(url) if ask is not None else None


def is_awaited(peers: Peers, url: str) -> bool:
    """Say whether whoever served ``url`` has died and somebody is to come, for whom the address is held."""
    ask: Callable[[str], bool] | None = getattr(peers, "is_awaited", None)
    return ask is not None and ask(url)


def part_with(peers: Peers, url: str) -> None:
    """End the connection to ``url`` where there is one: calls that wait there fail at once."""
    leave: Callable[[str], None] | None = getattr(peers, "leave", None)
    if leave is not None:
        leave(url)


def renewed(peers: Peers, url: str) -> None:
    """Have the next call to ``url`` dial anew; those that run on the connection of today go on."""
    renew: Callable[[str], None] | None = getattr(peers, "renew", None)
    if renew is not None:
        renew(url)


class Hop:
    """An empty place into which the client half puts the Handler that it reached."""

    __slots__ = ("handler",)

    def __init__(self) -> None:
        self.handler: Handler | None = None


TARGET: Key[Handler | str] = Key("target")
"""In ``call.values``: where this call shall go, as a URL or as a Handler of this process."""
TARGET_NAME: Key[str] = Key("target-name")
"""In ``call.values``: under what name the target is registered, where it was found by one."""
DIALLED: Key[Handler] = Key("dialled")
"""In ``call.values``, behind ``Dial``: the Handler that was reached."""
HOP: Key[Hop] = Key("hop")
"""In ``call.values``: the server half asks the client half where it went."""
NEXT_HOP: Key[Handler] = Key("next-hop")
"""In ``call.state`` of either half: the Handler at which this connection lives on, to follow its monitor."""

_OURSELVES = Peer(in_process=True)
_OURS = (TARGET, TARGET_NAME, DIALLED, HOP, OUTGOING, OWN, PASSING)


def peer_of(handler: Handler) -> Peer:
    """Return who is behind a Handler: the remote peer, or this process itself."""
    peer = getattr(handler, "peer", None)
    return peer if isinstance(peer, Peer) else _OURSELVES


def handed_over(call: Call, handler: Handler) -> Call:
    """Return the call as ``handler`` shall see it.

    A remote stub sees it as it is, with ``OUTGOING``; a role of this process sees a new call from an
    ``in_process`` peer, with neither our headers, nor our state, nor our route.
    """
    if not peer_of(handler).in_process:
        return call
    values = {key: value for key, value in call.values.items() if key not in _OURS}
    return Call(call.deadline, _OURSELVES, values=values)


class closing(Generic[T]):  # noqa: N801 - used as a function is, like contextlib.closing
    """Hold a stream and end it on leaving, also where it is not read to its end."""

    __slots__ = ("_stream",)

    def __init__(self, stream: AsyncIterator[T]) -> None:
        self._stream = stream

    async def __aenter__(self) -> AsyncIterator[T]:
        return self._stream

    async def __aexit__(self, *_: object) -> None:
        end = getattr(self._stream, "aclose", None)
        if end is not None:
            await end()


class Dialled:
    """The end of a client chain: hands each call to what ``Dial`` reached, keeps the answer for an undo."""

    @staticmethod
    def _handler(call: Call) -> Handler:
        handler = call.get(DIALLED)
        if handler is None:
            raise Internal("this client chain has nowhere to send the call", remedy="put a Dial into it")
        return handler

    async def request(self, call: Call, request: NetworkServiceRequest) -> Connection:
        """Pass a copy on: the elements in front may look at theirs again. A stub only writes it down."""
        handler = self._handler(call)
        if peer_of(handler).in_process:
            answer = await handler.request(handed_over(call, handler), copy_of(request))
        else:
            answer = await handler.request(call, request)
        life = call.state.get(LIFE)
        if life is None or not life.up:  # a refresh that fails is not undone
            call.state.set(REACHED, closable(answer, request.connection))
        return answer

    async def close(self, call: Call, connection: Connection) -> None:
        """Pass a copy on."""
        handler = self._handler(call)
        await handler.close(handed_over(call, handler), copy_of(connection))

    def monitor(self, call: Call, selector: MonitorScopeSelector) -> AsyncIterator[ConnectionEvent]:
        """Pass on."""
        handler = self._handler(call)
        return handler.monitor(handed_over(call, handler), selector)

    async def register(self, call: Call, entry: Entry) -> Entry:
        """Pass a copy on."""
        handler = self._handler(call)
        return await handler.register(handed_over(call, handler), copy_of(entry))

    def find(self, call: Call, query: Query) -> AsyncIterator[Found]:
        """Pass on."""
        handler = self._handler(call)
        return handler.find(handed_over(call, handler), query)

    async def unregister(self, call: Call, entry: Entry) -> None:
        """Pass a copy on."""
        handler = self._handler(call)
        await handler.unregister(handed_over(call, handler), copy_of(entry))
