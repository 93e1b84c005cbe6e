"""A copy of another registry's entries of one kind, and how sure it may be of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, Self

import structlog

from nsmesh.core.call import Call, Peer
from nsmesh.core.clock import Clock
from nsmesh.core.element import Handler
from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.core.lookup import has_expired
from nsmesh.core.pauses import pauses
from nsmesh.core.peering import closing
from nsmesh.core.scope import Scope
from nsmesh.model.messages import Found, NetworkServiceEndpoint, Query
from nsmesh.registry.catalogue import BACKLOG, Catalogue
from nsmesh.registry.query import E, Kind

log = structlog.get_logger()

INTERVAL = 0.2
"""Seconds before a broken watch is opened again, at first."""
LONGEST = 2.0
"""Seconds before a broken watch is opened again, after many."""
STEADY = 5.0
"""Seconds that a watch must have lived for the pauses to begin anew."""
LISTING = 15.0
"""Seconds that a list of everything may take."""
CATCH_UP = 1.0
"""Seconds that the watch gets to tell of all that was listed, before the list is asked for again."""
DOUBT = 5.0
"""Seconds after which a change of our own that the watch never told of is taken as overtaken by others."""


class Reflection(Generic[E]):
    """Entries of one kind as one watch tells of them.

    It is synchronised once the watch has told of everything that a list, asked for after the watch's first
    word, contains. (A watch does not say where its beginning ends.) An empty registry has no first word: then
    nothing is synchronised, and every question is passed on, which is cheap there.
    """

    def __init__(self, kind: Kind[E], *, backlog: int = BACKLOG) -> None:
        self.kind = kind
        self.word = kind.word
        self.synchronised = False
        self.idle = True
        self.answered = 0
        """Finds that were answered from here."""
        self.passed = 0
        """Finds that were passed on."""
        self.changes = 0
        """How often anything here has changed."""
        self._catalogue: Catalogue[E] = Catalogue(kind, backlog=backlog)
        self._told: set[str] = set()
        self._news = asyncio.Event()
        self._expected: dict[str, tuple[E | None, float]] = {}
        self._deleted_meanwhile: list[set[str]] = []

    def __len__(self) -> int:
        return len(self._catalogue)

    # --- keeping the copy -------------------------------------------------------------------------------

    def start(self, origin: Handler, scope: Scope) -> None:
        """Begin to follow ``origin``, in the background."""
        self.idle = False
        scope.spawn(self._follow(origin, scope), name=f"mirror of {self.word}s")

    def stop(self) -> None:
        """Forget everything; whoever owns the scope has ended or ends the following."""
        self._forget()
        self.idle = True

    async def _follow(self, origin: Handler, scope: Scope) -> None:
        """Keep the copy up to date, watch after watch, until cancelled."""
        waits = pauses(INTERVAL, LONGEST)
        while True:
            begun = scope.clock.monotonic()
            catching = scope.spawn(self._catch_up(origin), name=f"mirror of {self.word}s: catch up")
            try:
                await self._take(origin)
                why = "its stream ended"
            except MeshError as error:
                why = str(error)
            finally:
                catching.cancel()
                self._forget()
            if scope.clock.monotonic() - begun >= STEADY:
                waits = pauses(INTERVAL, LONGEST)
            log.info("mirror: the watch of the registry ended", of=self.word, why=why)
            await asyncio.sleep(next(waits))

    async def _take(self, origin: Handler) -> None:
        query = self.kind.query(self.kind.entry(), watch=True)
        async with closing(origin.find(Call(peer=Peer(in_process=True)), query)) as found:
            async for item in found:
                self._apply(self.kind.content(item), deleted=item.deleted)

    @property
    def sure(self) -> bool:
        """Whether every question is answered from here that finds anything."""
        return self.synchronised and not self._expected

    def _apply(self, entry: E, *, deleted: bool) -> None:
        name = entry.name
        self.changes += 1
        if deleted:
            self._catalogue.remove(name)
        else:
            self._catalogue.put(entry)
        for names in self._deleted_meanwhile:
            if deleted:
                names.add(name)
            else:
                names.discard(name)
        expected = self._expected.get(name)
        if expected is not None and expected[0] == (None if deleted else entry):
            del self._expected[name]
        if not self.synchronised:
            self._told.add(name)
        self._news.set()

    async def _catch_up(self, origin: Handler) -> None:
        """Find out when the watch has told of everything that there was."""
        await self._news.wait()
        waits = pauses(INTERVAL, LONGEST)
        while True:
            try:
                missing = {entry.name for entry in await self._list(origin)}
                async with asyncio.timeout(CATCH_UP):
                    while not missing <= self._told:
                        self._news.clear()
                        await self._news.wait()
            except (MeshError, TimeoutError):
                await asyncio.sleep(next(waits))
            else:
                self.synchronised = True
                self._told.clear()
                log.info("mirror: synchronised", of=self.word, entries=len(self._catalogue))
                return

    async def _list(self, origin: Handler) -> list[E]:
        query = self.kind.query(self.kind.entry())
        async with closing(origin.find(Call(peer=Peer(in_process=True)).within(LISTING), query)) as found:
            return [self.kind.content(item) async for item in found]

    def _forget(self) -> None:
        self.synchronised = False
        self.changes += 1
        self._told.clear()
        self._news.clear()
        self._expected.clear()
        self._catalogue.clear(
            Unavailable(
                f"the watch of the registry's {self.word}s broke",
                remedy="watch again: the present comes first",
            )
        )

    # --- answering --------------------------------------------------------------------------------------

    def expect(self, name: str, entry: E | None, clock: Clock) -> None:
        """Doubt what is here about ``name`` until the watch tells of ``entry`` (None: of its removal).

        What is here already may still be overtaken by a change before, of which the watch has not told yet;
        what is not here, too, when it is removed.
        """
        self.changes += 1
        if self.idle or _foreign(name):
            self._expected.pop(name, None)
        elif entry is None or name in self._expected or self._catalogue.get(name) != entry:
            self._expected[name] = (entry, clock.monotonic() + DOUBT)

    def find(self, call: Call, query: Query, origin: Handler, clock: Clock) -> AsyncIterator[Found]:
        """Answer from here where that is sure, else from ``origin``."""
        template = self.kind.template(query)
        if self.synchronised and not self._is_foreign(template):
            if query.watch:
                self.answered += 1
                return self._watched(template, clock)
            if not self._is_doubtful(template, clock):
                entries = [e for e in self._catalogue.list(template) if not _is_over(e, clock.now())]
                if entries:
                    self.answered += 1
                    return _Listed(self.kind.found, entries)
        self.passed += 1
        return origin.find(call, query) if query.watch else self._passed(call, query, origin, clock)

    async def _watched(self, template: E, clock: Clock) -> AsyncIterator[Found]:
        changes = self._catalogue.watch(template)
        try:
            async for change in changes:
                if change.deleted or not _is_over(change.entry, clock.now()):
                    yield self.kind.found(change.entry, deleted=change.deleted)
        finally:
            changes.close()

    async def _passed(self, call: Call, query: Query, origin: Handler, clock: Clock) -> AsyncIterator[Found]:
        """Pass on; leave out what is over, and what was deleted while the answer was on its way."""
        deleted: set[str] = set()
        self._deleted_meanwhile.append(deleted)
        try:
            async with closing(origin.find(call, query)) as found:
                async for item in found:
                    entry = self.kind.content(item)
                    if entry.name not in deleted and not _is_over(entry, clock.now()):
                        yield item
        finally:
            self._deleted_meanwhile = [names for names in self._deleted_meanwhile if names is not deleted]

    def _is_doubtful(self, template: E, clock: Clock) -> bool:
        if not self._expected:
            return False
        matches = self.kind.matcher(template)
        for name, (entry, until) in list(self._expected.items()):
            if clock.monotonic() >= until:
                del self._expected[name]
                continue
            for version in (entry, self._catalogue.get(name)):
                if version is not None and matches(version):
                    return True
        return False

    def _is_foreign(self, template: E) -> bool:
        return _foreign(template.name) or any(map(_foreign, self.kind.services(template)))


class _Listed(Generic[E]):
    """The answer to a question: what was there when it was asked. Nobody waits for it."""

    __slots__ = ("_entries", "_found")

    def __init__(self, found: Callable[[E], Found], entries: list[E]) -> None:
        self._found = found
        self._entries = iter(entries)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Found:
        for entry in self._entries:
            return self._found(entry)
        raise StopAsyncIteration


def _foreign(name: str) -> bool:
    """Say whether a name belongs to another registry domain."""
    return "@" in name


def _is_over(entry: object, now: float) -> bool:
    return isinstance(entry, NetworkServiceEndpoint) and has_expired(entry, now)
