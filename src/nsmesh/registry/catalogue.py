"""The view in memory that every store and mirror answers from: entries, their index, and who watches them.

Nothing here waits: a change and the telling of it are one step.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Self

from nsmesh.core.errors import Exhausted, MeshError
from nsmesh.registry.query import E, Kind
from nsmesh.registry.store import Change

BACKLOG = 4096
"""Changes that a watcher may be behind before its watch is ended."""


class Catalogue(Generic[E]):
    """Entries of one kind by name and by service, with watchers.

    A search by name costs one look-up; one by service looks at that service's entries; any other looks at
    all. A change is offered only to those who watch its name and to those who watch no name in particular.
    """

    def __init__(self, kind: Kind[E], *, backlog: int = BACKLOG) -> None:
        self.kind = kind
        self.backlog = backlog
        self._entries: dict[str, E] = {}
        self._by_service: defaultdict[str, dict[str, E]] = defaultdict(dict)
        self._namesakes: defaultdict[str, dict[str, E]] = defaultdict(dict)
        self._watchers: defaultdict[str, set[CatalogueWatch[E]]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[E]:
        return iter(tuple(self._entries.values()))

    @property
    def watchers(self) -> int:
        """How many watches are open."""
        return sum(map(len, self._watchers.values()))

    def put(self, entry: E, key: str = "") -> E:
        """Keep ``entry``, which is the catalogue's from now on, and tell the watchers.

        ``key`` is for those who hold several entries of one name: it stands for the name in ``get`` and
        ``remove``, and must never be a name itself.
        """
        name = key or entry.name
        old = self._entries.get(name)
        if old is not None:
            self._drop_index(name, old)
        self._entries[name] = entry
        if key:
            self._namesakes[entry.name][key] = entry
        for service in self.kind.services(entry):
            self._by_service[service][name] = entry
        self._tell(Change(entry))
        return entry

    def get(self, name: str) -> E | None:
        """Return the entry of that name, or None."""
        return self._entries.get(name)

    def remove(self, name: str) -> E | None:
        """Remove and return the entry of that name, and tell the watchers; None when there was none."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._drop_index(name, entry)
            self._tell(Change(entry, deleted=True))
        return entry

    def list(self, template: E) -> list[E]:
        """Return all entries that ``template`` means."""
        return list(filter(self.kind.matcher(template), self._candidates(template)))

    def watch(self, template: E) -> CatalogueWatch[E]:
        """Watch what ``template`` means, beginning with what is there now."""
        name = template.name
        watch = CatalogueWatch(
            name, self.kind.matcher(template), self.list(template), self.backlog, self._forget
        )
        self._watchers[name].add(watch)
        return watch

    def clear(self, error: MeshError) -> None:
        """Forget all entries without a word about each, and end every watch with ``error``."""
        self._entries.clear()
        self._by_service.clear()
        self._namesakes.clear()
        for group in list(self._watchers.values()):
            for watch in list(group):
                watch.fail(error)

    def _candidates(self, template: E) -> Iterable[E]:
        if template.name:
            if self._namesakes:
                return self._namesakes.get(template.name, {}).values()
            entry = self._entries.get(template.name)
            return () if entry is None else (entry,)
        services = self.kind.services(template)
        if services:
            return min((self._by_service.get(name, {}) for name in services), key=len).values()
        return self._entries.values()

    def _drop_index(self, name: str, entry: E) -> None:
        if self._namesakes and name in (group := self._namesakes.get(entry.name, {})):
            del group[name]
            if not group:
                del self._namesakes[entry.name]
        for service in self.kind.services(entry):
            group = self._by_service[service]
            del group[name]
            if not group:
                del self._by_service[service]

    def _tell(self, change: Change[E]) -> None:
        for group in ("", change.entry.name):
            for watch in tuple(self._watchers.get(group, ())):
                watch.offer(change)

    def _forget(self, watch: CatalogueWatch[E]) -> None:
        group = self._watchers.get(watch.name)
        if group is not None:
            group.discard(watch)
            if not group:
                del self._watchers[watch.name]


class CatalogueWatch(Generic[E]):
    """One watcher's queue. Bounded: whoever does not read is cut off, never waited for.

    ``name`` is the one name that it watches, or empty.
    """

    __slots__ = ("_changes", "_closed", "_error", "_forget", "_limit", "_matches", "_reader", "name")

    def __init__(
        self,
        name: str,
        matches: Callable[[E], bool],
        present: list[E],
        backlog: int,
        forget: Callable[[CatalogueWatch[E]], None],
    ) -> None:
        self.name = name
        self._matches = matches
        self._changes: deque[Change[E]] = deque(map(Change, present))
        self._limit = len(present) + backlog
        self._forget = forget
        self._error: MeshError | None = None
        self._closed = False
        self._reader: asyncio.Future[None] | None = None

    def offer(self, change: Change[E]) -> None:
        """Queue ``change`` if it is to a match."""
        if not self._matches(change.entry):
            return
        if len(self._changes) >= self._limit:
            self.fail(
                Exhausted(
                    f"the watch was ended because its reader is {self._limit} changes behind",
                    remedy="watch again: what is there now comes first",
                )
            )
            return
        self._changes.append(change)
        self._wake()

    def fail(self, error: MeshError) -> None:
        """End the watch with ``error``, at once: what is queued is not delivered."""
        self._error = error
        self.close()

    def close(self) -> None:
        """End the watch."""
        self._closed = True
        self._changes.clear()
        self._forget(self)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change[E]:
        while not self._changes:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._changes.popleft()
