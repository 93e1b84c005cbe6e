"""WatchEndpoints: wires of an endpoint whose process has died are told as dead, though they still answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Self

import structlog

from nsmesh.core.call import Call, State
from nsmesh.core.deciding import DOWNSTREAM, ENDPOINT
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.core.farewell import ABSENT, close_at
from nsmesh.core.path_event import Observer, PathEvent
from nsmesh.core.peering import NEXT_HOP, peer_of
from nsmesh.core.unreached import PASSED_OVER
from nsmesh.datapath.base import Datapath, Watched
from nsmesh.datapath.inhabited import inhabited
from nsmesh.model.fileurl import INODE_URL, file_path
from nsmesh.model.messages import LOCAL, Connection, NetworkServiceRequest

log = structlog.get_logger()

GRACE = 5.0
"""Seconds that a process has to be back in a namespace in which others live, or that has a name.

Endpoints that are restarted are back within two; their clients ask again, and nothing was lost.
"""
AGAIN = 0.02
"""Seconds until the first of several looks whether the others have died too: pods end process by process."""


def _keep(url: str) -> None:
    pass


class WatchEndpoints(Element):
    """Hears of the end of each process that answers for an endpoint here.

    Where nobody is left in the endpoint's namespace it is gone with its process: only descriptors of the
    mesh hold it, and it would answer for as long as they do. Else it has :data:`GRACE` to be back. Then its
    ends of the wires are set down, so that nobody takes them for alive, and ``tell`` hears of it. Its socket
    may be somebody else's as well, who waits for its return: then a dial is not refused, and nobody answers.
    ``part`` ends connections and dials to its URL.

    After:  Begin, Monitor
    Reads:  NEXT_HOP, DOWNSTREAM, ENDPOINT
    Leaves: one descriptor per process that answers for an endpoint; the URLs of the dead, for a while
    Close:  passes on, without waiting where the endpoint is dead, then watches for this wire no more
    """

    after = ("Begin", "Monitor")

    def __init__(
        self,
        datapath: Datapath,
        tell: Observer,
        *,
        part: Callable[[str], None] = _keep,
        lives: Callable[[str], bool] = inhabited,
    ) -> None:
        self._datapath = datapath
        self._part = part
        self._tell = tell
        self._lives = lives
        self._pids: dict[str, int] = {}
        self._wires: dict[int, dict[str, str]] = {}
        self._files: dict[int, int] = {}
        self._urls: dict[str, str] = {}
        self._dead: set[str] = set()
        self._silent: dict[str, float] = {}

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
        """Pass on, then watch who has granted it, if that is an endpoint on this node.

        Raises Unavailable where it is asked for again of an endpoint that has just died.
        """
        self._refuse(request.connection)
        answer = await next.request(call, request)
        handler, downstream = call.state.get(NEXT_HOP), call.state.get(DOWNSTREAM)
        endpoint = call.state.get(ENDPOINT)
        self._dead.discard(request.connection.id)
        self._silent.pop(endpoint.url if endpoint is not None else "", None)
        last = answer.path.index + 2 == len(answer.path.path_segments)
        if handler is not None and downstream is not None and downstream.cls == LOCAL and last:
            pid = peer_of(handler).pid or 0
            path = file_path(downstream.parameters.get(INODE_URL, "")) or ""
            if pid != os.getpid() and path:
                self._note(request.connection.id, pid, path)
                self._urls[request.connection.id] = endpoint.url if endpoint is not None else ""
        return answer

    def _refuse(self, connection: Connection) -> None:
        """Spare who asks again the wait for the dead."""
        if connection.id in self._dead and self.is_silent(self._urls.get(connection.id, "")):
            name = connection.network_service_endpoint_name
            raise Unavailable(
                f"the process of endpoint {name} has died", remedy="reselect, or start it again"
            )

    def is_silent(self, url: str) -> bool:
        """Whether an endpoint that was reached by this URL has died just now."""
        return self._silent.get(url, 0.0) > self.scope.clock.monotonic()

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on, then watch for it no more."""
        try:
            dead = connection.id in self._dead
            await close_at(next, call.put(ABSENT, dead), connection, dead=dead)
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
        self._dead.discard(connection_id)
        self._urls.pop(connection_id, None)
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
        log.info("an endpoint's process has died", pid=pid, wires=len(self._wires.get(pid, {})))
        self._judge(pid, set(), AGAIN, GRACE)

    def _judge(self, pid: int, told: set[str], pause: float, left: float) -> None:
        """Give up the wires into namespaces that nobody is left in, or all of them; look at others again."""
        wires = {wire: path for wire, path in self._wires.get(pid, {}).items() if wire not in told}
        if not wires or not self.scope.running:
            return
        gone = {path: left <= 0 or not self._lives(path) for path in set(wires.values())}
        now = [wire for wire, path in wires.items() if gone[path]]
        if now:
            log.info("an endpoint is given up", pid=pid, wires=len(now), after=round(GRACE - left, 3))
            self._bury(now)
            self.scope.spawn(self._lost(pid, now), name=f"endpoint {pid} died")
            told.update(now)
        wait = min(pause, left)
        if len(now) < len(wires):
            self.scope.after(wait, lambda: self._judge(pid, told, 2 * pause, left - wait))

    def _bury(self, wires: list[str]) -> None:
        clock = self.scope.clock.monotonic()
        self._dead.update(wires)
        self._silent = {url: until for url, until in self._silent.items() if until > clock}
        urls = {self._urls[wire] for wire in wires if self._urls.get(wire)}
        self._silent.update(dict.fromkeys(urls, clock + PASSED_OVER))
        for url in urls:
            self._part(url)

    async def _lost(self, pid: int, wires: list[str]) -> None:
        """Silence the endpoint's ends, tell.

        All of them at once: clients that hear of it by a stream that broke must find none alive.
        """
        if isinstance(self._datapath, Watched):
            try:
                await self._datapath.silence(wires)
            except MeshError as error:
                log.info("the ends of a dead endpoint are not set down", pid=pid, error=str(error))
        self._tell(PathEvent(tuple(wires), up=False, why=f"the endpoint's process {pid} has died"))
