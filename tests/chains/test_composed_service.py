"""A composed service in one process: client, manager, forwarder, a transparent function, an endpoint."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

from nsmesh.chains.client import client
from nsmesh.chains.endpoint import PassthroughEndpoint, endpoint
from nsmesh.chains.forwarder import Forwarder
from nsmesh.chains.nsmgr import Nsmgr
from nsmesh.core.call import Call
from nsmesh.core.tokens import PlainTokens
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements.dns_context import DnsContext
from nsmesh.elements.ipam import Ipam
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    Destination,
    Match,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
    NetworkServiceRequest,
)
from nsmesh.registry.handler import Registry
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT, SERVICE


class Neighbours:
    """Peers of this process, by URL."""

    def __init__(self):
        self.known = {}

    async def get(self, url):
        return self.known[url]


def service(first):
    """Clients go to ``first``; what the firewall asks for goes to the gateway."""
    return NetworkService(
        name="intranet",
        payload="IP",
        matches=[
            Match(
                source_selector={"app": "firewall"},
                routes=[Destination(destination_selector={"app": "gateway"})],
            ),
            Match(routes=[Destination(destination_selector={"app": first})]),
        ],
    )


class Mesh:
    def __init__(self):
        clock = VirtualClock()
        peers = self.peers = Neighbours()
        common = {"tokens": PlainTokens(clock), "clock": clock}
        registry = Registry(MemoryStore(SERVICE), MemoryStore(ENDPOINT))
        self.datapath = FakeDatapath()
        self.manager = Nsmgr("nsmgr", "unix:///nsmgr", registry=registry, peers=peers, **common)
        self.forwarder = Forwarder(
            "forwarder",
            registry=self.manager.registry,
            datapath=self.datapath,
            mechanisms=[Kernel()],
            peers=peers,
            **common,
        )
        self.ipam = Ipam([["10.0.0.0/24"], ["fd00::/64"]])
        self.gateway = endpoint(
            "gateway",
            self.ipam,
            DnsContext(),
            mechanisms=[Kernel(inode_url="file:///run/netns/gateway")],
            **common,
        )
        inside = Kernel(inode_url="file:///run/netns/firewall", unnumbered=True)
        self.firewall = PassthroughEndpoint(
            "firewall",
            labels={"app": "firewall"},
            manager=self.manager.server,
            serves=[inside],
            asks=[inside],
            peers=peers,
            **common,
        )
        self.client = client("nsc", manager=self.manager.server, peers=None, **common)
        peers.known = {
            "unix:///forwarder": self.forwarder.server,
            "unix:///gateway": self.gateway,
            "unix:///firewall": self.firewall.server,
            "unix:///nsmgr": self.manager.server,
        }

    @asynccontextmanager
    async def running(self):
        chains = (
            self.manager.registry,
            self.manager.onward,
            self.manager.server,
            self.forwarder.onward,
            self.forwarder.server,
            self.gateway,
            self.firewall.onward,
            self.firewall.server,
            self.client,
        )
        async with AsyncExitStack() as stack:
            for one in chains:
                await stack.enter_async_context(one.running())
            await self.put(service("firewall"))
            await self.put(_entry("forwarder", "forwarder", p2p="true"))
            await self.put(_entry("gateway", "intranet", app="gateway"))
            await self.put(_entry("firewall", "intranet", app="firewall"))
            yield self

    async def put(self, entry):
        await self.manager.registry.register(Call(), entry)

    async def ask(self, made):
        preference = Kernel(inode_url="file:///run/netns/app", name="nsm-1").offer(made)
        request = NetworkServiceRequest(connection=made, mechanism_preferences=[preference])
        return await self.client.request(Call().within(15), request)

    @property
    def ends(self):
        """Which namespaces the wires join."""
        pairs = ((a.netns, b.netns) for a, b in self.datapath.kernel.wires().values())
        return sorted(tuple(netns.rpartition("/")[2] for netns in pair) for pair in pairs)


def _entry(name, network_service, **labels):
    return NetworkServiceEndpoint(
        name=name,
        network_service_names=[network_service],
        network_service_labels={network_service: NetworkServiceLabels(labels=labels)},
        url=f"unix:///{name}",
    )


def first_connection():
    return Connection(id="nsc-0", network_service="intranet")


def scenario(body):
    async def main():
        async with Mesh().running() as mesh:
            await body(mesh)

    run(main())


def test_a_client_reaches_the_gateway_through_a_transparent_firewall():
    """Two wires; only the outer ends have addresses; a refresh changes nothing; Close leaves nothing."""

    async def body(mesh):
        answer = await mesh.ask(first_connection())
        names = [segment.name for segment in answer.path.path_segments]
        assert names == ["nsc", "nsmgr", "forwarder", "firewall", "nsmgr", "forwarder", "gateway"]
        assert answer.network_service_endpoint_name == "firewall"
        assert answer.payload == "IP"
        assert mesh.ends == [("app", "firewall"), ("firewall", "gateway")]
        ports = {
            (end.netns.rpartition("/")[2], end.port.numbered): end.port.addresses
            for end in mesh.datapath.kernel.interfaces.values()
        }
        assert ports == {
            ("app", True): ("10.0.0.1/32", "fd00::1/128"),
            ("gateway", True): ("10.0.0.0/32", "fd00::/128"),
            ("firewall", False): (),
        }
        changes = mesh.datapath.kernel.changes
        assert (await mesh.ask(copy_of(answer))).context == answer.context
        assert mesh.datapath.kernel.changes == changes
        await mesh.client.close(Call(), answer)
        assert mesh.ends == []
        assert mesh.ipam.leases == {}

    scenario(body)


def test_a_changed_service_rebuilds_the_wire():
    """When the service leads straight to the gateway, so does the wire, under the same address."""

    async def body(mesh):
        answer = await mesh.ask(first_connection())
        await mesh.put(service("gateway"))
        await asyncio.sleep(30)
        assert mesh.ends == [("app", "gateway")]
        assert len(mesh.ipam.leases) == 1
        interface = mesh.datapath.kernel.interfaces["/run/netns/app", "nsm-1"]
        assert interface.port.addresses == tuple(answer.context.ip_context.src_ip_addrs)
        await mesh.client.close(Call(), answer)
        assert mesh.ends == []

    scenario(body)
