"""WatchNodes: wires to a node that is not there any more are told as dead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Self

import structlog

from nsmesh.core.call import Call, State
from nsmesh.core.deciding import DOWNSTREAM, ENDPOINT
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.metrics import Counter
from nsmesh.core.node_session import Condition, NodeSession
from nsmesh.core.node_watching import Echoes
from nsmesh.core.path_event import Observer, PathEvent
from nsmesh.core.tunnelling import DST_IP, SRC_IP
from nsmesh.core.unreached import PASSED_OVER
from nsmesh.model.messages import REMOTE, Connection, Mechanism, NetworkServiceRequest

log = structlog.get_logger()

LOST = Counter("nsm_nodes_lost", "Other nodes that ceased to answer while they had wires to this one.")

FAREWELL = 0.02
"""Seconds that a dead node has to answer a Close; what is left there ends with its tokens."""


class WatchNodes(Element):
    """Sends echoes to each node that shares wires with this one, and tells when none comes back.

    A node is asked once each ``interval`` seconds, however many wires lead there. One that has never
    answered is not told as dead. One that answers again is told as alive for the wires that are left.

    After:  Begin, Monitor
    Reads:  mechanism (upstream), DOWNSTREAM, ENDPOINT
    Leaves: one timer per node that shares wires
    Close:  passes on, for :data:`FAREWELL` where the node is dead, then watches for this wire no more
    """

    after = ("Begin", "Monitor")

    def __init__(self, echoes: Echoes | None, tell: Observer, *, interval: float) -> None:
        self._echoes = echoes if interval > 0 else None
        self._tell = tell
        self._interval = interval
        self._nodes: dict[str, str] = {}
        self._wires: dict[str, set[str]] = {}
        self._sessions: dict[str, NodeSession] = {}
        self._urls: dict[str, str] = {}
        self._silent: dict[str, float] = {}

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
        return {node: session.condition for node, session in self._sessions.items()}

    def is_silent(self, url: str) -> bool:
        """Whether wires by way of this URL led to a node that was found dead just now."""
        return self._silent.get(url, 0.0) > self.scope.clock.monotonic()

    async def resume(self, call: Call, connection: Connection) -> None:
        """Watch its node again."""
        self._note(connection.id, _other_node(connection.mechanism, call.state.get(DOWNSTREAM)))

    async def forget(self, connection_id: str, state: State) -> None:  # noqa: ARG002 - nothing is kept there
        """Watch for it no more."""
        self._note(connection_id, "")

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, then watch the node that the wire leads to."""
        answer = await next.request(call, request)
        self._note(request.connection.id, _other_node(answer.mechanism, call.state.get(DOWNSTREAM)))
        endpoint = call.state.get(ENDPOINT)
        if endpoint is not None and request.connection.id in self._nodes:
            self._urls[request.connection.id] = endpoint.url
            self._silent.pop(endpoint.url, None)
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Pass on, then watch for it no more."""
        session = self._sessions.get(self._nodes.get(connection.id, ""))
        dead = session is not None and session.condition is Condition.DEAD
        try:
            await next.close(call.within(FAREWELL) if dead else call, connection)
        except MeshError as error:
            if not dead:
                raise
            log.info("close: its node does not answer", connection=connection.id, error=str(error))
        finally:
            self._note(connection.id, "")

    def _note(self, connection_id: str, node: str) -> None:
        if self._echoes is None or not self._echoes.reaches(node):
            node = ""
        known = self._nodes.get(connection_id, "")
        if known == node:
            return
        if known:
            del self._nodes[connection_id]
            self._urls.pop(connection_id, None)
            self._wires[known].discard(connection_id)
            if not self._wires[known]:
                del self._wires[known], self._sessions[known]  # its timer finds nothing, and ends
        if node:
            self._nodes[connection_id] = node
            self._wires.setdefault(node, set()).add(connection_id)
            if node not in self._sessions:
                session = self._sessions[node] = NodeSession(self._interval)
                self._step(node, session)

    def _step(self, node: str, session: NodeSession) -> None:
        """Take the answers, send the next echo, and come back in time."""
        if self._echoes is None or self._sessions.get(node) is not session or not self.scope.running:
            return
        for sender, sequence, took in self._echoes.heard():
            other = self._sessions.get(sender)
            if other is not None and other.heard(sequence, took):
                self._silent.clear()  # whoever is still dead is found so by asking
                self._told(sender, up=True, why=f"node {sender} answers again")
        step = session.step(self.scope.clock.monotonic())
        self._echoes.send(node, step.sequence)
        self.scope.after(step.wait, lambda: self._step(node, session))
        if step.died:
            LOST.add()
            over = self.scope.clock.monotonic() + PASSED_OVER
            urls = {self._urls[wire] for wire in self._wires[node] if wire in self._urls}
            self._silent = {url: until for url, until in self._silent.items() if self.is_silent(url)}
            self._silent.update(dict.fromkeys(urls, over))
            self._told(node, up=False, why=f"node {node} does not answer")

    def _told(self, node: str, *, up: bool, why: str) -> None:
        log.warning("node of wires", node=node, up=up, wires=len(self._wires[node]), why=why)
        self._tell(PathEvent(tuple(self._wires[node]), up=up, why=why))


def _other_node(upstream: Mechanism, downstream: Mechanism | None) -> str:
    """Return the address of the node at the other end of a wire, empty where both ends are here."""
    if upstream.cls == REMOTE:
        return upstream.parameters.get(SRC_IP, "")
    if downstream is not None and downstream.cls == REMOTE:
        return downstream.parameters.get(DST_IP, "")
    return ""
