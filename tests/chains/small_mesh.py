"""A small mesh for tests: client, manager and endpoints, each behind a cable that can be cut."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

from nsmesh.core.begin import Begin
from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import TimedOut, Unavailable
from nsmesh.core.peering import TARGET, Dialled
from nsmesh.core.tokens import OUTGOING
from nsmesh.core.virtual import VirtualClock
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.connect import Connect
from nsmesh.elements.dial import Dial
from nsmesh.elements.heal import Heal
from nsmesh.elements.monitor import Monitor
from nsmesh.elements.refresh import Refresh
from nsmesh.elements.timeout import Timeout
from nsmesh.elements.trim_path import TrimPath
from nsmesh.elements.update_path import UpdatePath
from nsmesh.elements.update_token import UpdateToken
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkServiceRequest

LIFE = 600.0


class NamedTokens:
    """Tokens that can be read: ``me>you``."""

    def __init__(self, me, lifetime=LIFE):
        self.me = me
        self.lifetime = lifetime
        self.clock = VirtualClock()

    def mint(self, audience):
        return f"{self.me}>{audience.spiffe_id}", self.clock.now() + self.lifetime

    def fit(self, token, caller):
        return token

    def subject(self, token):
        return token.partition(">")[0]


class Cable:
    """Remote stub and remote server in one: copies, headers, deadlines, latency; and it can be cut."""

    def __init__(self, caller, name, handler, latency=0.01):
        self.caller = caller
        self.name = name
        self.handler = handler
        self.latency = latency
        self.up = True
        self.streams = set()

    @property
    def peer(self):
        return Peer(spiffe_id=self.name)

    def cut(self):
        self.up = False
        for task in list(self.streams):
            task.cancel()

    async def _over(self, call, message, verb):
        there = Call(call.deadline, Peer(spiffe_id=self.caller), call.get(OUTGOING) or ())
        try:
            async with asyncio.timeout_at(call.deadline):
                await asyncio.sleep(self.latency)
                if not self.up:
                    raise Unavailable(f"{self.name} is gone")
                answer = await verb(there, copy_of(message))
                await asyncio.sleep(self.latency)
                if not self.up:
                    raise Unavailable(f"{self.name} went away")
                return copy_of(answer) if answer is not None else None
        except TimeoutError as error:
            raise TimedOut(f"{self.name} did not answer in time") from error

    async def request(self, call, request):
        return await self._over(call, request, self.handler.request)

    async def close(self, call, connection):
        await self._over(call, connection, self.handler.close)

    async def monitor(self, call, selector):
        """Read the far stream in a task of its own, so that a cut ends it for the reader alone."""
        queue = asyncio.Queue()

        async def pump():
            stream = self.handler.monitor(Call(peer=Peer(spiffe_id=self.caller)), selector)
            try:
                async for event in stream:
                    await asyncio.sleep(self.latency)
                    queue.put_nowait(copy_of(event))
            finally:
                await stream.aclose()
                queue.put_nowait(None)

        if not self.up:
            raise Unavailable(f"{self.name} is gone")
        task = asyncio.ensure_future(pump())
        self.streams.add(task)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self.streams.discard(task)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        raise Unavailable(f"the stream to {self.name} broke")


class Hold(Element):
    """Stands for what costs something: holds it from Request to Close, takes time, fails when told."""

    def __init__(self, delay=0.0):
        self.held = set()
        self.delay = delay
        self.plan = []
        self.requests = 0

    async def request(self, call, request, next):
        self.requests += 1
        self.held.add(request.connection.id)
        await self._act("in")
        answer = await next.request(call, request)
        await self._act("out")
        return answer

    async def close(self, call, connection, next):
        try:
            await self._act("close")
        finally:
            self.held.discard(connection.id)
            await next.close(call, connection)

    async def _act(self, where):
        await asyncio.sleep(self.delay)
        if self.plan and self.plan[0][0] == where:
            await self.plan.pop(0)[1]()


class Choose(Element):
    """A tiny discovery: the first endpoint that is not crossed out, unless the Request names one."""

    def __init__(self, cables):
        self.cables = cables
        self.crossed = set()

    def _pick(self, connection):
        named = connection.network_service_endpoint_name
        if named:
            if named in self.crossed or named not in self.cables:
                raise Unavailable(f"network service endpoint {named} is not found")
            return named
        for name in self.cables:
            if name not in self.crossed:
                return name
        raise Unavailable("no candidates found")

    async def request(self, call, request, next):
        name = self._pick(request.connection)
        request.connection.network_service_endpoint_name = name
        return await next.request(call.put(TARGET, self.cables[name]), request)


class SmallMesh:
    """nsc - mgr - nse1 or nse2, each chain with its own scope; ``probes`` hold and fail along the way.

    ``passing``: who passes a reselecting Request on as it is; others close what they had before.
    """

    def __init__(
        self, *, lifetime=LIFE, latency=0.01, heal=True, alive=None, passing=("nsc", "mgr", "onward")
    ):
        self.tokens = {name: NamedTokens(name, lifetime) for name in ("nsc", "mgr", "nse1", "nse2")}
        clock = VirtualClock()
        self.probes = {name: Hold() for name in ("nsc", "mgr", "onward", "nse1", "nse2")}
        self.monitors = {name: Monitor(name) for name in ("mgr", "nse1", "nse2")}
        self.begins = {
            name: Begin(passes_reselects=name in passing) for name in ("mgr", "onward", "nse1", "nse2")
        }
        self.begins["nsc"] = BeginClient(passes_reselects="nsc" in passing)
        self.endpoints = {
            name: chain(
                UpdatePath(name),
                self.begins[name],
                UpdateToken(self.tokens[name]),
                Timeout(),
                self.monitors[name],
                TrimPath(),
                self.probes[name],
                name=name,
                clock=clock,
            )
            for name in ("nse1", "nse2")
        }
        self.cables = {
            name: Cable("mgr", name, endpoint, latency) for name, endpoint in self.endpoints.items()
        }
        self.choose = Choose(self.cables)
        self.onward = chain(
            UpdatePath("mgr"),
            self.begins["onward"],
            self.probes["onward"],
            Dial(),
            ClientToken(self.tokens["mgr"]),
            end=Dialled(),
            name="mgr onward",
            clock=clock,
        )
        self.manager = chain(
            UpdatePath("mgr"),
            self.begins["mgr"],
            UpdateToken(self.tokens["mgr"]),
            Timeout(),
            self.monitors["mgr"],
            TrimPath(),
            self.probes["mgr"],
            self.choose,
            Connect(self.onward),
            name="mgr",
            clock=clock,
        )
        self.cable = Cable("nsc", "mgr", self.manager, latency)
        self.heal = Heal(alive)
        self.client = chain(
            UpdatePath("nsc"),
            self.begins["nsc"],
            Refresh(),
            *([self.heal] if heal else []),
            self.probes["nsc"],
            Dial(target=self.cable),
            ClientToken(self.tokens["nsc"]),
            end=Dialled(),
            name="nsc",
            clock=clock,
        )
        self.chains = [*self.endpoints.values(), self.onward, self.manager, self.client]

    @asynccontextmanager
    async def running(self):
        async with AsyncExitStack() as stack:
            for one in self.chains:
                await stack.enter_async_context(one.running())
            yield self

    async def ask(self, name="nsc-0", deadline=15.0, **more):
        request = NetworkServiceRequest(connection=Connection(id=name, network_service="s", **more))
        return await self.client.request(Call().within(deadline), request)

    async def close(self, name="nsc-0"):
        await self.client.close(Call().within(15), Connection(id=name))

    def holds(self):
        """Who holds how many connections."""
        return {name: len(probe.held) for name, probe in self.probes.items()}

    def lives(self):
        return {name: len(begin.connections) for name, begin in self.begins.items()}

    def assert_empty(self):
        """Nothing is left of any connection, anywhere."""
        for name, begin in self.begins.items():
            assert begin._lives == {}, name
            assert len(begin.turns) == 0, name
        for name, probe in self.probes.items():
            assert probe.held == set(), name
        for name, monitor in self.monitors.items():
            assert monitor.hub._known == {}, name
            assert monitor._follower.streams == 0, name
        for one in self.chains:
            assert one.scope.tasks == 0, one.name
            assert one.scope.timers == 0, one.name
        assert self.heal._watches == {}
        assert self.heal._follower.streams == 0
        for cable in (self.cable, *self.cables.values()):
            assert cable.streams == set(), cable.name
