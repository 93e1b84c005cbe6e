"""Strays: what an earlier process of ours had asked for, and nobody here remembers, is closed further on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

import structlog

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.journalling import Journal
from nsmesh.core.life import OWN
from nsmesh.core.metrics import Counter
from nsmesh.core.peering import TARGET, closing
from nsmesh.core.tokens import TokenSource
from nsmesh.core.unclosed import ENDS
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, MonitorScopeSelector, PathSegment

log = structlog.get_logger()

CLOSED = Counter(
    "nsm_strays_closed", "Connections that a process without its journal found behind it and closed."
)

YOUNG = 5.0
"""Seconds from the start in which who asks may have asked the process before us, and a hop not be back."""
PAUSE = 0.1
"""Seconds until those are asked who were not there, at first; each time twice as long."""
LOOK = 1.0
"""Seconds that a next hop has to say what it has."""

Behind = Callable[[Call, Connection], Awaitable[Sequence[str]]]
"""Returns the URLs of who may have been asked; raises MeshError where that cannot be known."""
Owe = Callable[[str, Connection], None]
"""Has a connection closed at a URL, however long that takes."""


class _Search:
    """What a caller came with, and who has said what he has for him."""

    __slots__ = ("asker", "connection", "heard", "peer")

    def __init__(self, peer: Peer, connection: Connection) -> None:
        self.peer = peer
        self.connection = connection
        self.asker: PathSegment = connection.path.path_segments[connection.path.index - 1]
        self.heard: set[str] = set()


class Strays(Element):
    """Closes further on what an earlier process of ours had there for a caller, and has forgotten.

    A caller that was not answered closes, and may ask anew then. Where our journal was lost meanwhile, we
    know neither what he means nor whom we had asked; but those behind us know: the paths of what they have
    name him and us. So they are asked for it by their monitors, and what they have for him under a segment of
    ours that does not live is closed there. It must have been asked for with a token of his own.

    The Close waits for that. Those who are not there yet are asked when they come, as long as we are young.
    Nobody is asked where the journal was whole when it was opened, nor after the longest life of a token.

    ``onward`` is our client half, and ``owe`` closes there; ``behind`` says who is to be asked; ``discard``
    removes what this process may have made itself, by the id of our segment.

    After:  UpdatePath
    Reads:  path
    Leaves: one task for each early Close
    Close:  passes on, then looks
    """

    after = ("UpdatePath",)

    def __init__(
        self,
        name: str,
        begin: Begin,
        onward: Handler,
        behind: Behind,
        owe: Owe,
        tokens: TokenSource,
        journal: Journal | None,
        discard: Callable[[str], Awaitable[object]] | None = None,
    ) -> None:
        self.name = name
        self._begin = begin
        self._onward = onward
        self._behind = behind
        self._owe = owe
        self._tokens = tokens
        self._discard = discard
        self._remembers = journal is not None and journal.whole
        self._started = 0.0

    async def entered(self, next: Handler) -> None:  # noqa: ARG002 - the face asks for it
        """Note when we started."""
        self._started = self.scope.clock.monotonic()

    def _may_have_forgotten(self, connection: Connection) -> bool:
        return (
            not self._remembers
            and connection.path.index > 0
            and self._begin.life(connection.id) is None
            and self.scope.clock.monotonic() < self._started + ENDS
        )

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on; look behind for what is not known here."""
        if not self._may_have_forgotten(connection):
            await next.close(call, connection)
            return
        search = _Search(call.peer, copy_of(connection))
        await next.close(call, connection)
        await self._look(search)
        if self._youth() > 0 and self.scope.running:
            self.scope.spawn(self._look_again(search), name=f"strays of {search.connection.id}")

    def _youth(self) -> float:
        """Return for how many seconds we are still young."""
        return self._started + YOUNG - self.scope.clock.monotonic()

    async def _look_again(self, search: _Search) -> None:
        """Look again and again as long as we are young: hops come back one after another."""
        pause = PAUSE
        while (left := self._youth()) > 0:
            await asyncio.sleep(min(pause, left))
            pause *= 2
            await self._look(search)

    async def _look(self, search: _Search) -> None:
        """Look at all who may have been asked, and have not said yet."""
        call = Call(peer=Peer(in_process=True), values={OWN: True}).within(LOOK)
        try:
            targets = set(await self._behind(call, search.connection)) - search.heard
        except MeshError as error:
            log.info("not looked for strays yet", connection=search.connection.id, error=str(error))
            return
        await asyncio.gather(*(self._look_at(target, search) for target in targets))

    async def _look_at(self, target: str, search: _Search) -> None:
        connection, asker = search.connection, search.asker
        selector = MonitorScopeSelector(path_segments=[PathSegment(name=asker.name, id=asker.id)])
        call = Call(peer=Peer(in_process=True), values={OWN: True, TARGET: target}).within(LOOK)
        try:
            async with asyncio.timeout(LOOK), closing(self._onward.monitor(call, selector)) as events:
                async for event in events:
                    found = list(event.connections.values())
                    break
                else:
                    return
        except (MeshError, TimeoutError) as error:
            log.info("not looked for strays yet", at=target, connection=connection.id, error=str(error))
            return
        search.heard.add(target)
        for one in self._strays(found, search):
            await self._end(target, one)

    def _strays(self, found: Sequence[Connection], search: _Search) -> Iterator[Connection]:
        """Yield what is ours, was asked for by that caller, and does not live, as we would close it."""
        asker, index, peer = search.asker, search.connection.path.index, search.peer
        for connection in found:
            segments = connection.path.path_segments
            if index >= len(segments) or segments[index].name != self.name:
                continue
            before, ours = segments[index - 1], segments[index]
            if (before.name, before.id) != (asker.name, asker.id) or self._begin.life(ours.id) is not None:
                continue
            if peer.in_process or self._tokens.subject(before.token) == peer.spiffe_id:
                stray = copy_of(connection)
                stray.id = ours.id
                stray.path.index = index
                yield stray

    async def _end(self, target: str, stray: Connection) -> None:
        log.info("to be closed further on: it is forgotten here", connection=stray.id, at=target)
        CLOSED.add()
        self._owe(target, stray)
        if self._discard is not None:
            await self._discard(stray.id)
