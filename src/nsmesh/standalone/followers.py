"""Following the processes and namespaces of others that wires end in: what ends takes its wires along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from nsmesh.core.errors import MeshError, NotFound
from nsmesh.core.process import start_ticks
from nsmesh.core.scope import Scope
from nsmesh.datapath import netns
from nsmesh.standalone.events import Events
from nsmesh.standalone.processes import Started, Watch

log = structlog.get_logger()

LOOK = 1.0
"""Seconds between two looks at namespaces: nothing tells us when one is deleted."""

Gone = Callable[[str, MeshError], Coroutine[Any, Any, None]]
"""Takes the wires of a client away, by its name, and says why to who is asking for one."""


class _Followed:
    __slots__ = ("identity", "path", "watch")

    def __init__(self, path: str, identity: tuple[int, int]) -> None:
        self.path = path
        self.identity = identity
        self.watch: Watch | None = None

    @property
    def there(self) -> bool:
        try:
            return netns.identity(self.path) == self.identity
        except OSError:
            return False


class Followers:
    """What each client's wires end in; ``gone`` is called with the client's name when that has ended."""

    def __init__(self, scope: Scope, events: Events, gone: Gone) -> None:
        self._scope = scope
        self._events = events
        self._gone = gone
        self._followed: dict[str, _Followed] = {}
        self._look: asyncio.Task[None] | None = None

    def follow(self, name: str, path: str, pid: int = 0) -> None:
        """Follow the namespace at ``path``, and process ``pid`` (0: none), for a client; again is no harm.

        Raises NotFound when it has ended just now.
        """
        if name in self._followed:
            return
        try:
            followed = _Followed(path, netns.identity(path))
        except OSError:
            raise NotFound(
                f"the network namespace {path} went away just now", remedy="ask again for one that is there"
            ) from None
        if pid:
            followed.watch = self._watch(name, pid)
        self._followed[name] = followed
        if self._look is None or self._look.done():
            self._look = self._scope.spawn(self._look_around(), name="look at namespaces")

    def _watch(self, name: str, pid: int) -> Watch:
        gone = NotFound(f"process {pid} ended just now", remedy="ask again for one that runs")
        ticks = start_ticks(pid)
        if ticks is None:
            raise gone
        try:
            return Watch(Started(pid, ticks), lambda: self._ended(name, f"process {pid} ended"))
        except ProcessLookupError:
            raise gone from None

    def forget(self, name: str) -> None:
        """Follow no more; a client that is not followed is no harm."""
        followed = self._followed.pop(name, None)
        if followed is not None and followed.watch is not None:
            followed.watch.close()

    def _ended(self, name: str, why: str) -> None:
        self.forget(name)
        self._events.add("client", f"{why}: the wires of client {name} are taken away", failed=True)
        gone = NotFound(f"{why}: client {name} has no wires any more", remedy="ask again for one that runs")
        self._scope.spawn(self._gone(name, gone), name=f"wires of {name}")

    async def _look_around(self) -> None:
        while self._followed:
            await asyncio.sleep(LOOK)
            for name, followed in list(self._followed.items()):
                if not followed.there:
                    self._ended(name, f"the network namespace {followed.path} is gone")
