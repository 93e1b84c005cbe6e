"""What ours asks of played roles: each call is compared with the recorded one, and answered as recorded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import Message
from interop_compare import Difference
from interop_next_hop import FORWARDER
from interop_trace import CLASSES, RecordedCall

from nsmesh import rpc
from nsmesh.core.errors import MeshError, Remote, Status
from nsmesh.model import methods
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import MonitorScopeSelector, NetworkServiceRequest, State

if TYPE_CHECKING:
    from interop_player import Player

QUERIES = {
    methods.SERVICE_FIND: "registry.NetworkServiceQuery",
    methods.ENDPOINT_FIND: "registry.NetworkServiceEndpointQuery",
}


@dataclass
class Expected:
    """A recorded call of our role at a played one: ``arrived`` when ours has made it."""

    call: RecordedCall
    arrived: asyncio.Event = field(default_factory=asyncio.Event)


class Taking:
    """Takes the calls of one play."""

    def __init__(self, player: Player) -> None:
        self._p = player

    async def unary(self, server: str, call: rpc.ServerCall, body: bytes) -> bytes:
        """Take a call of ours: compare it with the recorded one, and answer as recorded."""
        if self._p.next_hop is not None and server == FORWARDER:
            return await self._p.next_hop.unary(call, body)
        if self._p.prologue:
            return await self._p.world.unary(server, call, body)
        one = self._matching(server, call.path, body)
        if one is None and self._before(server, call.path):
            return await self._p.world.unary(server, call, body)
        if one is None:
            _, service, verb = call.path.split("/")
            where = f"{self._p.role}>{server} {verb}: a call"
            self._p.note(Difference(where, "nothing", f"{service} at {self._p.t:.3f}"))
            return await self._p.world.unary(server, call, body)
        self._check(one.call, call, body)
        one.arrived.set()
        self._ends(server, one.call, body)
        return await self._answer(one.call, call)

    def _ends(self, server: str, recorded: RecordedCall, body: bytes) -> None:
        """Count the Close that the field sends before a reselecting Request, which ends what was there."""
        if recorded.method != methods.REQUEST:
            return
        connection = NetworkServiceRequest.FromString(body).connection
        if connection.state == State.RESELECT_REQUESTED:
            close = self._matching(server, methods.CLOSE, connection.SerializeToString())
            if close is not None and close.call.t < recorded.t:
                close.arrived.set()

    def _before(self, server: str, method: str) -> bool:
        """Whether a registration was made before the recording began: it shows none."""
        return not self._p.shows_its_start and not any(
            one.call.server == server and one.call.method == method for one in self._p.expected
        )

    def _matching(self, server: str, method: str, body: bytes) -> Expected | None:
        waiting = [
            one
            for one in self._p.expected
            if one.call.server == server and one.call.method == method and not one.arrived.is_set()
        ]
        for one in waiting:
            recorded = one.call.request
            assert recorded is not None
            if self._p.b.same_subject(recorded, type(recorded).FromString(body)):
                return one
        return None

    def _check(self, recorded: RecordedCall, call: rpc.ServerCall, body: bytes) -> None:
        where = f"{self._p.role}>{recorded.server} {recorded.verb}:"
        assert recorded.request is not None
        self._p.compared += 1
        ours = type(recorded.request).FromString(body)
        theirs = copy_of(recorded.request)
        self._p.note(*self._p.compare.request_headers(recorded.metadata, list(call.metadata), where))
        self._p.note(*self._p.compare.own_segment(theirs, ours, list(call.metadata), where))
        self._p.note(*self._p.compare.message(theirs, ours, where))
        now = asyncio.get_running_loop().time()
        remaining = None if call.deadline is None else call.deadline - now
        self._p.note(*self._p.compare.timeout(recorded.header("grpc-timeout"), remaining, where))
        for url in self._p.b.urls_in(recorded.request):
            self._p.spawn(self._descriptor(call, url, where))

    async def _descriptor(self, call: rpc.ServerCall, url: str, where: str) -> None:
        """See that the descriptor that a message names came with it."""
        dev, ino = self._p.b.inode(url).removeprefix("inode://").split("/")
        try:
            os.close(await call.descriptors.wait(int(dev), int(ino), asyncio.get_running_loop().time() + 1))
        except (MeshError, ValueError) as error:
            self._p.note(Difference(f"{where} descriptor {self._p.trace.inodes[url]}", "it came", error))

    async def _answer(self, recorded: RecordedCall, call: rpc.ServerCall) -> bytes:
        if recorded.ended is None or recorded.reset_by == ">":
            await asyncio.get_running_loop().create_future()
        await self._p.until(recorded.ended or 0.0)
        if recorded.reset_by:
            raise Remote(Status.UNAVAILABLE, "EOF")
        for key, value in recorded.head:
            if key == "path":
                call.reply[key] = self._p.b.spoken(value)
        if recorded.status:
            raise Remote(Status(recorded.status), self._p.b.spoken(recorded.status_message))
        answer = recorded.answers[0].message
        assert answer is not None
        await self._remember(recorded, answer)
        if self._p.standins[recorded.server].unix:
            for path in self._p.b.paths_of(answer):
                call.send_fd(str(path))
        live: Message = self._p.b.live(answer)
        return live.SerializeToString()

    async def _remember(self, recorded: RecordedCall, answer: Message) -> None:
        """Let the played role know what it has granted or stored."""
        world = self._p.world
        if recorded.method in {methods.REQUEST, methods.CLOSE}:
            granted = answer if recorded.method == methods.REQUEST else recorded.request
            world.answered(recorded.server, recorded.method, granted)
        elif recorded.verb == "Register":
            await world.put(recorded.server, answer)
        elif recorded.verb == "Unregister":
            await world.drop(recorded.server, recorded.request)

    def find(self, server: str, call: rpc.ServerCall, body: bytes) -> AsyncIterator[bytes]:
        """Answer a Find of ours from what the registry of the recording held; look at what it asks for."""
        query = CLASSES[QUERIES[call.path]].FromString(body)
        recorded = [
            self._p.b.live(one.request) for one in self._p.finds if one.method == call.path and one.request
        ]
        where = f"{self._p.role}>{server} Find"
        if query not in recorded and self._p.shows_its_start:
            self._p.note(
                Difference(f"{where}: {' '.join(str(query).split()) or 'all'}", "nothing", "a query")
            )
        self._p.note(*self._p.compare.proof(list(call.metadata), self._p.b.svids[server].spiffe_id, where))
        self._p.compared += 1
        return self._p.world.find(server, call, body, sends=self._p.standins[server].unix)

    def monitor(self, server: str, call: rpc.ServerCall, body: bytes) -> AsyncIterator[bytes]:
        """Answer a monitor of ours with what the recorded one told; look at what it asks for."""
        selector = MonitorScopeSelector.FromString(body)
        where = f"{self._p.role}>{server} MonitorConnections"
        own = [segment.name for segment in selector.path_segments]
        if own not in ([self._p.b.name], [""]) or selector.network_services:
            self._p.note(Difference(f"{where} selector", self._p.b.name, selector))
        self._p.note(*self._p.compare.proof(list(call.metadata), self._p.b.svids[server].spiffe_id, where))
        self._p.compared += 1
        return self._p.world.monitor(server, call, body)
