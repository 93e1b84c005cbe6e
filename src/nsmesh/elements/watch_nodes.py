"""WatchNodes: wires to a node that is not there any more are told as dead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Self

import structlog

from nsmesh.core.call import Call, State
from nsmesh.core.deciding import DOWNSTREAM, ENDPOINT
from nsmesh.core.element import Element, Handler
from nsmesh.core.farewell import ABSENT, close_at
from nsmesh.core.metrics import Counter
from nsmesh.core.node_session import Condition, NodeSession
from nsmesh.core.node_watching import Echoes
from nsmesh.core.path_event import Observer, PathEvent
from nsmesh.core.tunnelling import DST_IP, SRC_IP
from nsmesh.core.unreached import PASSED_OVER
from nsmesh.model.messages import REMOTE, Connection, Mechanism, NetworkServiceRequest

log = structlog.get_logger()

LOST = Counter("nsm_nodes_lost", "Other nodes that ceased to answer while they had wires to this one.")


class _Far:
    """Another node. ``wires``: by id, by way of which URL, if any. ``alone``: since when it has none."""

    __slots__ = ("address", "alone", "session", "wires")

    def __init__(self, address: str, interval: float) -> None:
        self.address = address
        self.session = NodeSession(interval)
        self.wires: dict[str, str] = {}
        self.alone = 0.0

    @property
    def dead(self) -> bool:
        return self.session.condition is Condition.DEAD


def _keep(url: str) -> None:
    pass


class WatchNodes(Element):
    """Sends echoes to each node that shares wires with this one, and tells when none comes back.

    A node is asked once each ``interval`` seconds, however many wires lead there. One that has never
    answered is not told as dead. One that answers again is told as alive for the wires that are left. A dead
    one without wires is asked on for :data:`PASSED_OVER` seconds, so that it is known when it is back.
    ``part`` ends the connection to a URL: nothing comes over one to a dead node.

    After:  Begin, Monitor
    Reads:  mechanism (upstream), DOWNSTREAM, ENDPOINT
    Leaves: one timer per node that shares wires, or was found dead just now
    Close:  passes on, without waiting where the node is dead, then watches for this wire no more
    """

    after = ("Begin", "Monitor")

    def __init__(
        self,
        echoes: Echoes | None,
        tell: Observer,
        *,
        interval: float,
        part: Callable[[str], None] = _keep,
    ) -> None:
        self._echoes = echoes if interval > 0 else None
        self._tell = tell
        self._part = part
        self._interval = interval
        self._nodes: dict[str, _Far] = {}
        self._far: dict[str, _Far] = {}
        self._silent: dict[str, str] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Open the socket while the chain runs."""
        if self._echoes is None:
            yield self
            return
        try:
            self._echoes.open()
        except OSError as error:
            log.warning("nodes that die are not noticed: no echoes can be sent", error=str(error))
            self._echoes = None
            yield self
            return
        echoes = self._echoes
        try:
            yield self
        finally:
            self._echoes = None
            echoes.close()

    def keeps(self) -> Collection[str]:
        """Return whose nodes are watched."""
        return self._nodes.keys()

    @property
    def watched(self) -> dict[str, Condition]:
        """What is known of each node that shares wires with this one."""
        return {far.address: far.session.condition for far in self._far.values() if far.wires}

    def is_silent(self, url: str) -> bool:
        """Whether wires by way of this URL led to a node that was found dead, and is not known to be back."""
        return url in self._silent

    async def resume(self, call: Call, connection: Connection) -> None:
        """Watch its node again."""
        self._note(connection.id, *_other_node(connection.mechanism, call))

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Watch for it no more."""
        self._note(connection_id, "", "")

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then watch the node that the wire leads to."""
        answer = await next.request(call, request)
        node, url = _other_node(answer.mechanism, call)
        self._silent.pop(url, None)  # somebody there has just answered
        self._note(request.connection.id, node, url)
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on, then watch for it no more."""
        far = self._nodes.get(connection.id)
        dead = far is not None and far.dead
        absent = dead and far is not None and bool(far.wires.get(connection.id))
        try:
            await close_at(next, call.put(ABSENT, absent), connection, dead=dead)
        finally:
            self._note(connection.id, "", "")

    def _note(self, connection_id: str, node: str, url: str) -> None:
        if self._echoes is None or not self._echoes.reaches(node):
            node = ""
        known = self._nodes.get(connection_id)
        if known is not None and known.address != node:
            del self._nodes[connection_id], known.wires[connection_id]
            if not known.wires:
                known.alone = self.scope.clock.monotonic()
                if not known.dead:
                    self._forget(known)
        if not node:
            return
        far = self._far.get(node)
        if far is None:
            far = self._far[node] = _Far(node, self._interval)
            self._step(far)
        self._nodes[connection_id] = far
        far.wires[connection_id] = url

    def _forget(self, far: _Far) -> None:
        """Ask a node no more: its timer finds nothing, and ends."""
        del self._far[far.address]
        self._speaks(far)

    def _speaks(self, far: _Far) -> None:
        self._silent = {url: node for url, node in self._silent.items() if node != far.address}

    def _step(self, far: _Far) -> None:
        """Take the answers, send the next echo, and come back in time."""
        if self._echoes is None or self._far.get(far.address) is not far or not self.scope.running:
            return
        self._hear(self._echoes)
        now = self.scope.clock.monotonic()
        if not far.wires and far.alone and (not far.dead or now >= far.alone + PASSED_OVER):
            self._forget(far)
            return
        step = far.session.step(now)
        self._echoes.send(far.address, step.sequence)
        self.scope.after(step.wait, lambda: self._step(far))
        if step.died:
            LOST.add()
            urls = set(filter(None, far.wires.values()))
            self._silent.update(dict.fromkeys(urls, far.address))
            self._told(far, up=False, why=f"node {far.address} does not answer")
            for url in urls:
                self._part(url)

    def _hear(self, echoes: Echoes) -> None:
        for sender, sequence, took in echoes.heard():
            far = self._far.get(sender)
            if far is not None and far.session.heard(sequence, took):
                self._speaks(far)
                self._told(far, up=True, why=f"node {sender} answers again")

    def _told(self, far: _Far, *, up: bool, why: str) -> None:
        log.warning("node of wires", node=far.address, up=up, wires=len(far.wires), why=why)
        self._tell(PathEvent(tuple(far.wires), up=up, why=why))


def _other_node(upstream: Mechanism, call: Call) -> tuple[str, str]:
    """Return the address of the node at the other end of a wire, and the URL by way of which it was reached.

    Empty where both ends are here; and no URL where it is that node that has reached us.
    """
    if upstream.cls == REMOTE:
        return upstream.parameters.get(SRC_IP, ""), ""
    downstream, endpoint = call.state.get(DOWNSTREAM), call.state.get(ENDPOINT)
    if downstream is not None and downstream.cls == REMOTE:
        return downstream.parameters.get(DST_IP, ""), endpoint.url if endpoint is not None else ""
    return "", ""
