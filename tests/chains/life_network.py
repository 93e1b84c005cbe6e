"""Processes of a mesh and what is between them: cables that break with whoever stands at an end, and faults.

A process that crashes does nothing more from that moment on: whatever its code tries in being torn down
reaches neither a neighbour nor the kernel, as it would not after SIGKILL.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from nsmesh.core.call import Call, Peer
from nsmesh.core.errors import Internal, TimedOut, Unavailable
from nsmesh.core.observing import installed
from nsmesh.core.peering import closing
from nsmesh.core.tokens import OUTGOING
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.model.copying import copy_of

LATENCY = 0.001
THIEF = "mallory"
LIFETIME = 60.0
"""Seconds that a token, and so a connection without a refresh, lives."""


class Tokens:
    """Tokens that can be read (``me>you``) and live :data:`LIFETIME`."""

    def __init__(self, me, clock):
        self.me, self.clock = me, clock

    def mint(self, audience):
        return f"{self.me}>{audience.spiffe_id}", self.clock.now() + LIFETIME

    def fit(self, token, caller):
        return token

    def subject(self, token):
        return token.partition(">")[0]


class Process:
    """One life of a role. ``front`` is asked by others; ``chains`` run while it lives."""

    def __init__(self, name):
        self.name = name
        self.alive = True
        self.serving = set()
        self.stack = AsyncExitStack()
        self.chains = []
        self.front = None
        self.peers = None

    @property
    def peer(self):
        return Peer(spiffe_id=self.name)

    def serve(self, work):
        """Run what somebody else asked for; it ends with this process."""
        task = asyncio.ensure_future(work)
        self.serving.add(task)
        task.add_done_callback(self._served)
        return task

    def _served(self, task):
        self.serving.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked has it, or is gone

    async def end(self):
        """Stop all that runs here; what it still tries reaches nobody once ``alive`` is false."""
        await self.stack.aclose()
        self.alive = False
        for task in list(self.serving):
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)

    async def crash(self):
        """Die, and be torn down."""
        self.alive = False
        for task in list(self.serving):
            task.cancel()
        await self.end()


class Cable:
    """One connection between two processes, as the caller's stub; it breaks with either of them."""

    def __init__(self, caller, server):
        self.caller, self.server = caller, server
        self.up = True
        self.streams = set()

    @property
    def peer(self):
        return self.server.peer

    @property
    def name(self):
        return self.server.name

    @property
    def works(self):
        return self.up and self.caller.alive and self.server.alive

    def cut(self):
        """Break the connection: calls and streams under way fail at the caller."""
        self.up = False
        for task in list(self.streams):
            task.cancel()

    def _arrived(self, call):
        return Call(call.deadline, self.caller.peer, call.get(OUTGOING) or ())

    def _check(self):
        if not self.works:
            raise Unavailable(f"the connection from {self.caller.name} to {self.server.name} broke")

    async def _unary(self, call, message, verb):
        there = copy_of(message)
        task = None
        try:
            async with asyncio.timeout_at(call.deadline):
                self._check()
                await asyncio.sleep(LATENCY)
                self._check()
                task = self.server.serve(verb(self._arrived(call), there))
                self.streams.add(task)
                await asyncio.wait((task,))
                await asyncio.sleep(LATENCY)
                self._check()
                if task.cancelled():
                    raise Unavailable(f"{self.server.name} ended the call")
                answer = task.result()
                return copy_of(answer) if answer is not None else None
        except TimeoutError as error:
            raise TimedOut(f"{self.server.name} did not answer in time") from error
        finally:
            if task is not None:
                self.streams.discard(task)
                task.cancel()

    async def request(self, call, request):
        return await self._unary(call, request, self.server.front.request)

    async def close(self, call, connection):
        await self._unary(call, connection, self.server.front.close)

    async def register(self, call, entry):
        return await self._unary(call, entry, self.server.front.register)

    async def unregister(self, call, entry):
        await self._unary(call, entry, self.server.front.unregister)

    def monitor(self, call, selector):
        return self._stream(call, self.server.front.monitor, copy_of(selector))

    def find(self, call, query):
        return self._stream(call, self.server.front.find, copy_of(query))

    async def _stream(self, call, verb, message):
        queue = asyncio.Queue()
        self._check()

        async def pump():
            try:
                await asyncio.sleep(LATENCY)
                async with closing(verb(self._arrived(call), message)) as events:
                    async for event in events:
                        queue.put_nowait(copy_of(event))
                queue.put_nowait(None)
            except asyncio.CancelledError:
                queue.put_nowait(Unavailable(f"the stream from {self.server.name} broke"))
                raise
            except Exception as error:  # noqa: BLE001 - told to the reader
                queue.put_nowait(error)

        task = self.server.serve(pump())
        self.streams.add(task)
        try:
            while (item := await queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                self._check()
                yield item
        finally:
            self.streams.discard(task)
            task.cancel()


class Network:
    """Who listens where; each process keeps one cable per neighbour as long as it holds."""

    def __init__(self):
        self.listening = {}
        self.cables = {}

    def peers(self, process):
        return _Peers(self, process)

    def cut(self, name):
        """Break all connections of the processes of a name."""
        for cable in list(self.cables.values()):
            if name in {cable.caller.name, cable.server.name}:
                cable.cut()


class _Peers:
    def __init__(self, network, process):
        self._network, self._process = network, process

    async def get(self, url):
        network, key = self._network, (self._process, url)
        await asyncio.sleep(0)
        cable = network.cables.get(key)
        if cable is not None and cable.works:
            return cable
        server = network.listening.get(url)
        if server is None or not server.alive or not self._process.alive:
            network.cables.pop(key, None)
            raise Unavailable(f"nobody listens at {url}")
        cable = network.cables[key] = Cable(self._process, server)
        return cable


class Faults:
    """One planned fault at a time, after so many steps between elements; an observer of all chains.

    ``kind``: ``error``, ``cancel`` (whoever asked goes away), ``crash`` (of whoever comes by), ``amnesia``
    (the same, and its journal is gone; clients keep theirs), ``outage`` (of all but clients), ``stall``.
    """

    def __init__(self, mesh):
        self.mesh = mesh
        self.process = None
        self.left = None
        self.kind = ""
        self.fired = 0
        self.stolen = []

    def watching(self, process):
        """Look at the chains that are made in the block: they are ``process``'s."""
        self.process = process
        return installed(self)

    def arm(self, kind, after):
        self.kind, self.left = kind, after

    def disarm(self):
        self.left = None

    def role(self, name, handler):
        return handler

    def link(self, chain, element, handler):
        return _Step(self, self.process, f"{chain}: {type(element).__name__}", handler)

    async def step(self, process, where):
        if not process.alive:
            raise Unavailable(f"{process.name} is no more")
        if self.left is None:
            return
        self.left -= 1
        if self.left >= 0:
            return
        self.left = None
        self.fired += 1
        self.mesh.note(f"fault {self.kind} in {where}")
        if self.kind == "error":
            raise Internal(f"a fault was put into {where}")
        if self.kind == "cancel":
            self.mesh.cancel_requests()
            await asyncio.sleep(0)
        elif self.kind in {"crash", "amnesia"}:
            self.mesh.crash_soon(process, forgets=self.kind == "amnesia")
            await asyncio.sleep(3600)
        elif self.kind == "outage":
            self.mesh.crash_all_soon()
            await asyncio.sleep(3600 if not process.alive else 0)
        elif self.kind == "stall":
            await asyncio.sleep(20)


class _Step:
    """One element as the one in front of it sees it: faults happen on the way in and on the way out."""

    def __init__(self, faults, process, where, handler):
        self._faults, self._process, self._where, self._handler = faults, process, where, handler

    @property
    def name(self):
        return getattr(self._handler, "name", self._where)

    async def _around(self, work):
        await self._faults.step(self._process, f"{self._where} in")
        result = await work()
        await self._faults.step(self._process, f"{self._where} out")
        return result

    async def request(self, call, request):
        return await self._around(lambda: self._handler.request(call, request))

    async def close(self, call, connection):
        if call.peer.spiffe_id == THIEF and self._where.endswith(": Timeout"):
            self._faults.stolen.append(f"{self._where} {connection.id}")  # it came past Authorize
        await self._around(lambda: self._handler.close(call, connection))

    def monitor(self, call, selector):
        return self._handler.monitor(call, selector)

    async def register(self, call, entry):
        return await self._handler.register(call, entry)

    def find(self, call, query):
        return self._handler.find(call, query)

    async def unregister(self, call, entry):
        await self._handler.unregister(call, entry)


class MortalDatapath(FakeDatapath):
    """A datapath whose process may be dead; faults also come between the kernel's doing and the answer."""

    def __init__(self, kernel, process, faults):
        super().__init__(kernel)
        self._process, self._plan = process, faults
        self.before = self._before

    async def _before(self, verb, wire_id):
        await self._plan.step(self._process, f"datapath before {verb}")

    async def apply(self, wire):
        applied = await super().apply(wire)
        await self._plan.step(self._process, "datapath after apply")
        return applied

    async def remove(self, wire_id):
        await super().remove(wire_id)
        await self._plan.step(self._process, "datapath after remove")
