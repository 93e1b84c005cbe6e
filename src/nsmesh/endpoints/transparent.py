"""Transparent passthrough: what comes from the client leaves towards the service, if the rules let it.

The rules live in the kernel of our own network namespace, one table for each wire; this module only says how
they shall be. They stay when the process ends: a firewall that is restarted drops no flow.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Self

import structlog

from nsmesh.core.errors import Conflict, MeshError, NotFound, Refused
from nsmesh.core.scope import Scope
from nsmesh.endpoints import interfaces, nft
from nsmesh.endpoints.firewall_table import Counted, parse_counters, program, removal, table_name
from nsmesh.endpoints.rules import Ruleset

log = structlog.get_logger()

PAUSE = 1.0
"""Seconds until a wire whose programming failed is tried again."""


@dataclass(slots=True)
class Passage:
    """One wire as it shall be, and how far it is. ``inside`` faces the client, ``outside`` the service."""

    id: str
    inside: str
    outside: str
    indexes: tuple[int, int] | None = None
    ruleset: Ruleset | None = None
    missing: tuple[str, ...] = ()
    trouble: str = ""
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def state(self) -> str:
        """``wired``, ``waiting for NAME``, or what went wrong."""
        if self.trouble:
            return self.trouble
        if self.missing:
            return f"waiting for {' and '.join(self.missing)}"
        return "wired" if self.indexes else "wiring"


class Transparent:
    """All passages of one firewall. Enter :meth:`running` first; background work belongs to ``scope``.

    Interfaces may come late, go, and come again under the same name: they are wired when both are there.
    """

    def __init__(self, scope: Scope, ruleset: Ruleset) -> None:
        self.scope = scope
        self.ruleset = ruleset
        self.passages: dict[str, Passage] = {}
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()
        self._can_reject = True
        self._numbered: set[int] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Follow the namespace's interfaces while entered."""
        async with interfaces.changes(self._changed) as self._numbered:
            work = self.scope.spawn(self._follow(), name="transparent: follow interfaces")
            try:
                yield self
            finally:
                work.cancel()
                await asyncio.wait((work,))

    async def wire(self, wire_id: str, inside: str, outside: str) -> Passage:
        """Let a wire pass from ``inside`` to ``outside``, as soon as both are there; again is no harm.

        Raises Conflict where another wire has one of the interfaces, Invalid where a name cannot be one.
        """
        for other in self.passages.values():
            taken = {inside, outside} & {other.inside, other.outside}
            if other.id != wire_id and taken:
                raise Conflict(
                    f"wire {wire_id} wants interface {taken.pop()}, which belongs to wire {other.id}",
                    remedy="close the other wire first, or let the manager choose the interface's name",
                )
        if inside == outside:
            raise Conflict(f"wire {wire_id} has the same interface, {inside}, on both sides")
        program(table_name(wire_id), inside, outside, self.ruleset, rewire=True)  # names are checked at once
        async with self._lock:
            passage = self.passages.get(wire_id)
            if passage is None or (passage.inside, passage.outside) != (inside, outside):
                passage = self.passages[wire_id] = Passage(wire_id, inside, outside)
            await self._settle(passage)
        return passage

    async def unwire(self, wire_id: str) -> None:
        """End a wire's passage; one that is not known is ended already."""
        async with self._lock:
            if self.passages.pop(wire_id, None) is not None:
                await nft.apply(removal(table_name(wire_id)))

    async def reload(self, ruleset: Ruleset) -> None:
        """Exchange the rules of all wires, one transaction each; established flows go on.

        Raises Refused, with the rules as they were, where the kernel does not take the new ones.
        """
        async with self._lock:
            before, self.ruleset = self.ruleset, ruleset
            try:
                for passage in self.passages.values():
                    if passage.indexes is not None:
                        await self._program(passage, rewire=False)
            except MeshError:
                self.ruleset = before
                self._changed.set()  # the wires that had the new rules get the old ones back
                raise

    async def counters(self, wire_id: str) -> list[Counted]:
        """Return a wire's counters, rules in order; see :class:`Counted`.

        Raises NotFound before it is wired.
        """
        listing = await nft.listing("netdev", table_name(wire_id))
        if listing is None:
            raise NotFound(f"wire {wire_id} has no firewall table yet", remedy="wait for its interfaces")
        return parse_counters(listing)

    async def sweep(self) -> list[str]:
        """Remove the tables that belong to no known wire, left by an earlier run, and return their names."""
        async with self._lock:
            wanted = {table_name(wire_id) for wire_id in self.passages}
            stale = [name for name in await nft.tables("netdev") if name.startswith("nsm_")]
            stale = [name for name in stale if name not in wanted]
            if stale:
                await nft.apply("".join(map(removal, stale)))
        return stale

    async def _follow(self) -> None:
        while True:
            failed = any(passage.trouble for passage in self.passages.values())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PAUSE if failed else None):
                    await self._changed.wait()
            self._changed.clear()
            numbered = set(self._numbered)
            self._numbered.clear()
            async with self._lock:
                for passage in list(self.passages.values()):
                    await self._settle(passage, numbered=bool(numbered & set(passage.indexes or ())))

    async def _settle(self, passage: Passage, *, numbered: bool = False) -> None:
        """Bring one passage to where it shall be, as far as its interfaces allow; keep and log trouble.

        ``numbered``: a forwarder that knows no transparent functions gave one of them an address.
        """
        indexes = _indexes(passage)
        names = (passage.inside, passage.outside)
        passage.missing = tuple(name for name in names if interfaces.index(name) is None)
        if indexes is None:
            passage.indexes = None
            passage.trouble = ""
            passage.ready.clear()
            return
        rewire = indexes != passage.indexes
        if not (rewire or numbered or passage.trouble or passage.ruleset != self.ruleset):
            return
        try:
            work = [self._program(passage, rewire=rewire)]
            if rewire or numbered:
                work.append(interfaces.make_transparent(*names))
            # side by side: the first packets of a wire come within milliseconds of its interfaces
            for failure in await asyncio.gather(*work, return_exceptions=True):
                if failure is not None:
                    raise failure
        except MeshError as error:
            if str(error) != passage.trouble and _indexes(passage) == indexes:
                log.warning("wire cannot be let through", connection=passage.id, error=str(error))
            passage.trouble = str(error)
            passage.indexes = None
            passage.ready.clear()
            return
        passage.trouble = ""
        passage.indexes = indexes
        passage.ready.set()
        if rewire:
            log.info("wire passes", connection=passage.id, inside=passage.inside, outside=passage.outside)

    async def _program(self, passage: Passage, *, rewire: bool) -> None:
        table = table_name(passage.id)

        def text() -> str:
            names = (passage.inside, passage.outside)
            return program(table, *names, self.ruleset, rewire=rewire, can_reject=self._can_reject)

        try:
            await nft.apply(text())
        except Refused:
            if not self._can_reject or _indexes(passage) is None:
                raise
            self._can_reject = False
            try:
                await nft.apply(text())
            except MeshError:
                self._can_reject = True  # that was not the reason
                raise
            log.warning("this kernel cannot refuse from an ingress hook: denied packets are dropped silently")
        passage.ruleset = self.ruleset


def _indexes(passage: Passage) -> tuple[int, int] | None:
    inside, outside = interfaces.index(passage.inside), interfaces.index(passage.outside)
    return None if inside is None or outside is None else (inside, outside)
