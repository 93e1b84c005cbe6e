"""A mesh whose roles talk over real sockets as if each were a process of its own; and what it holds open."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from nsmesh.chains.client import client
from nsmesh.chains.endpoint import endpoint, registration
from nsmesh.chains.registry import running_registry
from nsmesh.chains.roles import registered, running_forwarder, running_nsmgr
from nsmesh.chains.runtime import runtime, served
from nsmesh.chains.settings import ForwarderSettings, NsmgrSettings, RegistrySettings
from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain, Element, chain
from nsmesh.core.errors import NotFound, Refused
from nsmesh.core.peering import Dialled
from nsmesh.core.probes import Inject
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.dial import Dial
from nsmesh.elements.ipam import Ipam
from nsmesh.elements.update_path import UpdatePath
from nsmesh.mechanisms.kernel import OWN_NAMESPACE, Kernel
from nsmesh.model import methods
from nsmesh.model.messages import (
    LOCAL,
    Connection,
    Mechanism,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
    NetworkServiceRequest,
)
from nsmesh.rpc.files import HELD

OURS = Call(peer=Peer(in_process=True))


def open_files() -> list[str]:
    """Return what the descriptors of this process lead to."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(f"{entry.name} {entry.readlink()}")
        except OSError:
            continue
    return sorted(found)


class Watch(Element):
    """Notes what passes: the mechanism's inodeURL on the way in, and in the answer."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.asked: list[list[str]] = []
        self.answered: list[str] = []
        self.closed: list[str] = []

    async def request(self, call, request, next):
        named = [*request.mechanism_preferences]
        if request.connection.HasField("mechanism"):
            named.append(request.connection.mechanism)
        self.asked.append([mechanism.parameters.get("inodeURL", "") for mechanism in named])
        answer = await next.request(call, request)
        self.answered.append(answer.mechanism.parameters.get("inodeURL", ""))
        return answer

    async def close(self, call, connection, next):
        self.closed.append(connection.mechanism.parameters.get("inodeURL", ""))
        await next.close(call, connection)


class DescriptorMesh:
    """Registry, manager, forwarder, one endpoint, one client. ``datapath`` makes the forwarder's wires."""

    forwarders = (Kernel,)
    """The mechanisms of the forwarder."""

    def __init__(self, *, share=False, datapath=None, place=OWN_NAMESPACE, lifetime=600.0) -> None:
        self.share = share
        self.lifetime = lifetime
        self.datapath = datapath or FakeDatapath()
        self.place = place
        self.watch = Watch()
        self.fault = Inject(lambda: Refused("the endpoint says no"), times=0)
        self.registry_fault = Inject(lambda: Refused("the registry says no"), "register", times=0)
        self.stack = AsyncExitStack()
        self.remotes: dict = {}

    async def __aenter__(self):
        self.folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.private = self.stack.enter_context(tempfile.TemporaryDirectory())
        await self._control()
        self.nsc = await self._client()
        self.register = await self.start_endpoint("nse")
        await self.ask(99)
        await self.close(99)
        self.watch.clear()
        return self

    async def __aexit__(self, *_):
        await self.stack.aclose()

    def plugins(self):
        """Return the mechanisms of an endpoint."""
        return [Kernel(inode_url=self.place)]

    def function(self):
        """Return what stands in the client's chain besides the usual."""
        return ()

    def url(self, name: str) -> str:
        return f"unix://{self.folder}/{name}.sock"

    async def held(self):
        return await self.stack.enter_async_context(
            runtime(lifetime=self.lifetime, dial_timeout=2.0, share=self.share)
        )

    async def _control(self):
        enter = self.stack.enter_async_context
        first = await self.held()
        settings = RegistrySettings(listen_on=(self.url("registry"),))
        await enter(running_registry(settings, first, sqlite=False, front=(self.registry_fault,)))
        settings = NsmgrSettings(
            name="nsmgr",
            listen_on=(self.url("nsmgr"),),
            registry_url=self.url("registry"),
            excluded_prefixes_file="",
            dial_timeout=2.0,
        )
        second = first if self.share else await self.held()
        self.manager = await enter(running_nsmgr(settings, second))
        settings = ForwarderSettings(
            name="forwarder",
            connect_to=self.url("nsmgr"),
            listen_on=self.url("forwarder"),
            dial_timeout=2.0,
        )
        third = first if self.share else await self.held()
        self.forwarder = await enter(
            running_forwarder(settings, third, self.datapath, [kind() for kind in self.forwarders])
        )
        self.control = third

    async def _client(self):
        held = await self.stack.enter_async_context(
            runtime(lifetime=self.lifetime, dial_timeout=2.0, share=False)
        )
        made = client(
            "nsc",
            manager=self.url("nsmgr"),
            peers=held.peers,
            tokens=held.tokens,
            function=self.function(),
        )
        return await self.stack.enter_async_context(made.running())

    async def start_endpoint(self, name: str, stack: AsyncExitStack | None = None):
        """Start an endpoint on a socket in a private folder, and unlink that once it is registered."""
        stack = stack or self.stack
        held = await stack.enter_async_context(runtime(lifetime=self.lifetime, dial_timeout=2.0, share=False))
        chain = endpoint(
            name,
            Ipam([["10.7.0.0/16"]]),
            self.watch,
            self.fault,
            mechanisms=self.plugins(),
            tokens=held.tokens,
        )
        await stack.enter_async_context(chain.running())
        url = f"unix://{self.private}/{name}.sock"
        await stack.enter_async_context(served(held, (url,), chain))
        register = registration(name, manager=self.url("nsmgr"), peers=held.peers, tokens=held.tokens)
        await stack.enter_async_context(register.running())
        entry = NetworkServiceEndpoint(
            name=name,
            network_service_names=["s"],
            network_service_labels={"s": NetworkServiceLabels()},
            url=url,
        )
        done = asyncio.Event()
        await stack.enter_async_context(
            registered(register, [NetworkService(name="s", payload="IP"), entry], done=done.set)
        )
        await done.wait()
        Path(self.private, f"{name}.sock").unlink()
        return register

    def wanted(self, number: int = 0, *, url: str = OWN_NAMESPACE):
        connection = Connection(id=f"nsc-{number}", network_service="s")
        mechanism = Mechanism(cls=LOCAL, type="KERNEL", parameters={"inodeURL": url, "name": f"nsm-{number}"})
        return NetworkServiceRequest(connection=connection, mechanism_preferences=[mechanism])

    async def ask(self, number: int = 0, *, seconds=5, url: str = OWN_NAMESPACE, client=None) -> Connection:
        """Ask; again, as long as the forwarder has not registered yet or not heard of the endpoint."""
        client = client or self.nsc
        for _ in range(100):
            try:
                return await client.request(OURS.within(seconds), self.wanted(number, url=url))
            except NotFound:
                await asyncio.sleep(0.02)
        raise AssertionError("the forwarder did not register")

    async def close(self, number: int = 0, *, client=None) -> None:
        await (client or self.nsc).close(OURS.within(5), Connection(id=f"nsc-{number}"))

    async def plain_client(self, stack: AsyncExitStack | None = None) -> Chain:
        """Return a client that passes no descriptors by itself."""
        stack = stack or self.stack
        held = await stack.enter_async_context(runtime(lifetime=self.lifetime, dial_timeout=2.0, share=False))
        made = chain(
            UpdatePath("nsc"),
            BeginClient(),
            Dial(held.peers, target=self.url("nsmgr")),
            ClientToken(held.tokens),
            end=Dialled(),
            name="plain client",
        )
        self.remotes[made] = held.peers
        return await stack.enter_async_context(made.running())

    async def registrant(self):
        """Return a connection to the manager, as somebody who registers by hand."""
        held = await self.stack.enter_async_context(
            runtime(lifetime=self.lifetime, dial_timeout=2.0, share=False)
        )
        return await held.peers.get(self.url("nsmgr"))

    async def _remote(self, who):
        return await self.remotes[who].get(self.url("nsmgr")) if who in self.remotes else who

    async def send(self, who, path) -> str:
        """Send a descriptor with the next bytes of ``who``, and return the URL that names it."""
        return (await self._remote(who)).passing.send(str(path))

    async def health(self, who) -> None:
        await (await self._remote(who)).client.unary(methods.HEALTH_CHECK, b"")

    def pool_of(self, who):
        return self.remotes[who]._others._pool

    async def finder(self):
        """Return what a forwarder finds endpoints by."""
        held = await self.held()
        made = registration(
            "finder", manager=self.url("nsmgr"), peers=held.peers, tokens=held.tokens, finds=True
        )
        return await self.stack.enter_async_context(made.running())

    async def listen_at(self, path) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.stack.callback(sock.close)
        sock.bind(str(path))
        sock.listen()

    async def settled(self, condition) -> None:
        for _ in range(200):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it did not settle")


def holds(path) -> bool:
    """Return whether the file at ``path`` is among the received files."""
    found = Path(path).stat()
    return (found.st_dev, found.st_ino) in HELD._by_inode


def counted() -> int:
    """Return how many received files this process holds, once for each who needs them."""
    return sum(len(file.owners) for file in HELD._by_inode.values())
