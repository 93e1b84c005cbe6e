"""A mesh of several nodes in one process: manager and forwarder on each, one registry, kernels of paper."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

from nsmesh.chains.client import client
from nsmesh.chains.endpoint import endpoint
from nsmesh.chains.forwarder import Forwarder
from nsmesh.chains.nsmgr import Nsmgr
from nsmesh.core.call import Call
from nsmesh.core.errors import Unavailable
from nsmesh.core.tokens import PlainTokens
from nsmesh.core.virtual import VirtualClock
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements.dns_context import DnsContext
from nsmesh.elements.ipam import Ipam
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.vxlan import Vxlan
from nsmesh.model.messages import (
    Connection,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
    NetworkServiceRequest,
)
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE


class Neighbours:
    """Peers by URL. ``refuse``: nobody listens there; ``silent``: nothing comes back from there."""

    def __init__(self):
        self.known = {}
        self.refuse = set()
        self.silent = set()
        self.dialled = []

    async def get(self, url):
        self.dialled.append(url)
        if url in self.silent:
            await asyncio.Event().wait()
        if url in self.refuse or url not in self.known:
            raise Unavailable(f"nobody listens at {url}")
        return self.known[url]


class Node:
    """A manager and a forwarder of one node, with the chains of its client and its endpoint."""

    def __init__(self, number, registry, peers, clock, *, mtu=1500, remote=True):
        common = {"tokens": PlainTokens(clock), "clock": clock}
        self.number, self.mtu, self.peers, self.clock = number, mtu, peers, clock
        self.offered = None
        self.ip = f"192.0.2.{number}"
        self.url = f"tcp://{self.ip}:5001"
        self.datapath = FakeDatapath()
        self.kernel = self.datapath.kernel
        self.manager = Nsmgr(
            f"nsmgr{number}",
            self.url,
            registry=registry,
            peers=peers,
            labels={"nodeName": f"node{number}"},
            **common,
        )
        vxlan = Vxlan(self.ip, link_mtu=lambda: self.mtu, random=Random(number))
        self.mechanisms = [Kernel(), *([vxlan] if remote else [])]
        self.forwarder = self.new_forwarder()
        self.ipam = Ipam([[f"10.0.{number}.0/24"], [f"fd00:{number}::/64"]])
        self.inside = Kernel(inode_url=f"file:///run/netns/nse{number}")
        self.endpoint = endpoint(f"nse{number}", self.ipam, DnsContext(), mechanisms=[self.inside], **common)
        self.client = client(f"nsc{number}", manager=self.manager.server, peers=None, **common)
        peers.known[self.url] = self.manager.server
        peers.known[f"unix:///nse{number}"] = self.endpoint

    def new_forwarder(self):
        """Return the node's forwarder, as it is after a start: it remembers nothing."""
        made = Forwarder(
            f"fwd{self.number}",
            registry=self.manager.registry,
            datapath=self.datapath,
            mechanisms=self.mechanisms,
            peers=self.peers,
            tokens=PlainTokens(self.clock),
            clock=self.clock,
        )
        self.peers.known[f"unix:///fwd{self.number}"] = made.server
        return made

    @property
    def chains(self):
        of_forwarder = (self.forwarder.registry, self.forwarder.onward, self.forwarder.server)
        manager = (self.manager.registry, self.manager.onward, self.manager.server)
        return (*manager, *of_forwarder, self.endpoint, self.client)

    async def put(self, entry):
        await self.manager.registry.register(Call(), entry)

    async def offer(self, service="intranet", **labels):
        """Register this node's endpoint through its manager."""
        self.offered = (service, labels)
        await self.put(entry(f"nse{self.number}", service, **labels))

    async def ask(self, name="c-0", interface="nsm-1", **more):
        made = Connection(id=name, network_service="intranet", **more)
        preference = Kernel(inode_url=f"file:///run/netns/app{self.number}", name=interface).offer(made)
        request = NetworkServiceRequest(connection=made, mechanism_preferences=[preference])
        return await self.client.request(Call().within(15), request)

    async def close(self, name="c-0"):
        await self.client.close(Call().within(15), Connection(id=name))

    @property
    def tunnels(self):
        return list(self.kernel.tunnels.values())


class RemoteMesh:
    """``nodes`` by number from 1; the service is ``intranet`` with the payload that was asked for.

    ``clocks`` by number, for nodes whose time is another one.
    """

    def __init__(self, count=2, *, payload="IP", clocks=None, **options):
        self.clock = VirtualClock()
        self.peers = Neighbours()
        self.payload = payload
        self.registry = Registry(MemoryStore(SERVICE), MemoryStore(ENDPOINT))
        self.nodes = {
            number: Node(number, self.registry, self.peers, (clocks or {}).get(number, self.clock), **options)
            for number in range(1, count + 1)
        }

    def __getitem__(self, number):
        return self.nodes[number]

    @asynccontextmanager
    async def running(self):
        async with AsyncExitStack() as stack:
            for node in self.nodes.values():
                for one in node.chains:
                    await stack.enter_async_context(one.running())
            await self[1].put(NetworkService(name="intranet", payload=self.payload))
            await self._register_forwarders()
            yield self

    async def _register_forwarders(self):
        for number, node in self.nodes.items():
            await node.put(entry(f"fwd{number}", "forwarder", p2p="true"))

    async def register(self):
        """Register forwarders and offered endpoints again, as they do by themselves."""
        await self._register_forwarders()
        for node in self.nodes.values():
            if node.offered is not None:
                await node.offer(node.offered[0], **node.offered[1])

    def wired(self, near, far):
        """Return the tunnels of the one wire between two nodes, after checking that they meet."""
        (here,), (there,) = self[near].tunnels, self[far].tunnels
        assert (here.vni, here.mtu) == (there.vni, there.mtu)
        assert (here.local, here.remote) == (there.remote, there.local) == (self[near].ip, self[far].ip)
        assert (here.local_port, here.remote_port) == (there.remote_port, there.local_port)
        return here, there

    @property
    def empty(self):
        return all(not node.kernel.interfaces and not node.kernel.tunnels for node in self.nodes.values())


def entry(name, network_service, **labels):
    return NetworkServiceEndpoint(
        name=name,
        network_service_names=[network_service],
        network_service_labels={network_service: NetworkServiceLabels(labels=labels)},
        url=f"unix:///{name}",
    )
