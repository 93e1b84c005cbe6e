"""WatchEndpoints: wires of an endpoint whose process has died are told as dead, though they still answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Self

import structlog

from nsmesh.core.call import Call, State
from nsmesh.core.deciding import DOWNSTREAM
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.path_event import Observer, PathEvent
from nsmesh.core.peering import NEXT_HOP, peer_of
from nsmesh.datapath.base import Datapath, Watched
from nsmesh.datapath.inhabited import inhabited
from nsmesh.model.fileurl import INODE_URL, file_path
from nsmesh.model.messages import LOCAL, Connection, NetworkServiceRequest

log = structlog.get_logger()

GRACE = 5.0
"""Seconds that a process has to be back in a namespace in which others live, or that has a name.

Endpoints that are restarted are back within two; their clients ask again, and nothing was lost.
"""


class WatchEndpoints(Element):
    """Hears of the end of each process that answers for an endpoint here.

    Where nobody is left in the endpoint's namespace it is gone with its process: only descriptors of the
    mesh hold it, and it would answer for as long as they do. Else it has :data:`GRACE` to be back. Then its
    ends of the wires are set down, so that nobody takes them for alive, and ``tell`` hears of it.

    After:  Begin, Monitor
    Reads:  NEXT_HOP, DOWNSTREAM
    Leaves: one descriptor per process that answers for an endpoint
    Close:  passes on, then watches for this wire no more
    """

    after = ("Begin", "Monitor")

    def __init__(
        self, datapath: Datapath, tell: Observer, *, lives: Callable[[str], bool] = inhabited
    ) -> None:
        self._datapath = datapath
        self._tell = tell
        self._lives = lives
        self._pids: dict[str, int] = {}
        self._wires: dict[int, dict[str, str]] = {}
        self._files: dict[int, int] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Let go of all processes at the end."""
        try:
            yield self
        finally:
            for pid in list(self._files):
                self._leave(pid)

    def keeps(self) -> Collection[str]:
        """Return whose endpoints are watched."""
        return self._pids.keys()

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Watch for it no more."""
        self._drop(connection_id)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then watch who has granted it, if that is an endpoint on this node."""
        answer = await next.request(call, request)
        handler, downstream = call.state.get(NEXT_HOP), call.state.get(DOWNSTREAM)
        last = answer.path.index + 2 == len(answer.path.path_segments)
        if handler is not None and downstream is not None and downstream.cls == LOCAL and last:
            pid = peer_of(handler).pid or 0
            path = file_path(downstream.parameters.get(INODE_URL, "")) or ""
            if pid != os.getpid() and path:
                self._note(request.connection.id, pid, path)
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on, then watch for it no more."""
        try:
            await next.close(call, connection)
        finally:
            self._drop(connection.id)

    def _note(self, connection_id: str, pid: int, path: str) -> None:
        if self._pids.get(connection_id) != pid:
            self._drop(connection_id)
        if pid <= 0 or not self.scope.running:
            return  # of another process namespace: nothing can be known of it
        if pid not in self._files:
            try:
                opened = os.pidfd_open(pid)
            except OSError as error:
                log.debug("a process cannot be watched", pid=pid, error=str(error))
                return
            self._files[pid] = opened
            asyncio.get_running_loop().add_reader(opened, self._died, pid)
        self._pids[connection_id] = pid
        self._wires.setdefault(pid, {})[connection_id] = path

    def _drop(self, connection_id: str) -> None:
        pid = self._pids.pop(connection_id, 0)
        wires = self._wires.get(pid)
        if wires is not None:
            wires.pop(connection_id, None)
            if not wires:
                del self._wires[pid]
                self._leave(pid)

    def _leave(self, pid: int) -> None:
        opened = self._files.pop(pid, -1)
        if opened >= 0:
            asyncio.get_running_loop().remove_reader(opened)
            os.close(opened)

    def _died(self, pid: int) -> None:
        self._leave(pid)
        wires = self._wires.get(pid, {})
        gone = {path: not self._lives(path) for path in set(wires.values())}
        now = [wire for wire, path in wires.items() if gone[path]]
        log.info("an endpoint's process has died", pid=pid, wires=len(wires), gone=len(now))
        if now:
            self.scope.spawn(self._lost(pid, now), name=f"endpoint {pid} died")
        if len(now) < len(wires):
            self.scope.after(GRACE, lambda: self._still_away(pid))

    def _still_away(self, pid: int) -> None:
        wires = list(self._wires.get(pid, ()))
        if wires and self.scope.running:
            self.scope.spawn(self._lost(pid, wires), name=f"endpoint {pid} stays away")

    async def _lost(self, pid: int, wires: list[str]) -> None:
        """Silence the endpoint's ends, tell."""
        for wire in wires:
            if isinstance(self._datapath, Watched):
                try:
                    await self._datapath.silence(wire)
                except MeshError as error:
                    log.info("the end of a dead endpoint is not set down", connection=wire, error=str(error))
        self._tell(PathEvent(tuple(wires), up=False, why=f"the endpoint's process {pid} has died"))
