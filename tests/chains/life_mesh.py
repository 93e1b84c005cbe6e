"""A whole mesh in virtual time whose processes crash and come back; the kernels outlive them.

Two nodes, a registry, clients on the first node, endpoints of one service on both nodes and one of another.
"""

from __future__ import annotations

import asyncio
from itertools import count
from random import Random

from life_network import LIFETIME, THIEF, Faults, MortalDatapath, Network, Process, Tokens

from nsmesh.chains.both import Both
from nsmesh.chains.client import client
from nsmesh.chains.endpoint import PassthroughEndpoint, endpoint, registration
from nsmesh.chains.forwarder import Forwarder
from nsmesh.chains.nsmgr import Nsmgr
from nsmesh.chains.registry import memory_registry
from nsmesh.chains.restore import held_connection
from nsmesh.chains.roles import registered
from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.errors import MeshError
from nsmesh.core.peering import closing
from nsmesh.core.virtual import VirtualClock
from nsmesh.datapath.fake import FakeKernel
from nsmesh.elements.authorize import Authorize
from nsmesh.elements.client_info import ClientInfo
from nsmesh.elements.heal import Heal
from nsmesh.elements.ipam import Ipam
from nsmesh.elements.keep_apart import KeepApart
from nsmesh.elements.monitor import Monitor
from nsmesh.journal.memory import MemoryJournal
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.vxlan import Vxlan
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    Destination,
    Match,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
    NetworkServiceRequest,
    State,
)

OURSELVES = Peer(in_process=True)
REGISTRY = "tcp://registry:5000"
NODES = (1, 2)
ENDPOINTS = {
    "nse1": (1, "intranet"),
    "nse2": (2, "intranet"),
    "nse3": (1, "lan"),
    "nse4": (1, "secure"),
}
MIDDLE = "fw1"
"""A function in the middle of the path to the service ``secure``."""
CLIENTS = ("app1", "app2")
SERVICES = {
    "intranet": NetworkService(name="intranet", payload="IP"),
    "lan": NetworkService(name="lan", payload="ETHERNET"),
    "secure": NetworkService(
        name="secure",
        payload="IP",
        matches=[
            Match(
                source_selector={"app": MIDDLE}, routes=[Destination(destination_selector={"app": "nse4"})]
            ),
            Match(routes=[Destination(destination_selector={"app": MIDDLE})]),
        ],
    ),
}
ROLES = ("registry", "nsmgr1", "fwd1", "nsmgr2", "fwd2", *ENDPOINTS, MIDDLE)


def begin_of(chain):
    return next(element for element in chain.elements if isinstance(element, Begin))


def element_of(chain, kind):
    return next(element for element in chain.elements if isinstance(element, kind))


class LifeMesh:
    """The processes by name, None where one is dead; what clients have asked for; the kernels by node."""

    def __init__(self, *, journals=False, descriptors=False):
        self.journals = {} if journals else None
        """What each process has written, by its name: it outlives the process."""
        self.descriptors = count(1) if descriptors else None
        """Numbers of processes: sockets of forwarders and endpoints are reached by a descriptor."""
        self.clock = VirtualClock()
        self.network = Network()
        self.faults = Faults(self)
        self.nodes = NODES
        self.kernels = {node: FakeKernel() for node in NODES}
        self.processes = {}
        self.history = []
        self.requests = set()
        self.crashing = set()
        self.makers = {
            "registry": self._registry,
            **{f"nsmgr{node}": self._manager for node in NODES},
            **{f"fwd{node}": self._forwarder for node in NODES},
            **dict.fromkeys(ENDPOINTS, self._endpoint),
            MIDDLE: self._middle,
            **dict.fromkeys(CLIENTS, self._client),
        }

    def note(self, text):
        self.history.append(f"{asyncio.get_running_loop().time():.3f} {text}")

    # --- processes --------------------------------------------------------------------------------------

    async def start(self, *names):
        for name in names or self.makers:
            if self.alive(name) or name not in self.makers:
                continue
            process = Process(name)
            process.peers = self.network.peers(process)
            process.journal = None
            process.url = f"unix:///{name}"
            if self.descriptors is not None:
                process.url = f"unix:///proc/{next(self.descriptors)}/fd/9"
            if self.journals is not None:
                process.journal = MemoryJournal(self.journals.setdefault(name, {}))
            with self.faults.watching(process):
                await self.makers[name](process)
            self.processes[name] = process

    def alive(self, name):
        process = self.processes.get(name)
        return process is not None and process.alive

    async def crash(self, name):
        process = self.processes.get(name)
        if process is not None:
            self.crash_soon(process)
            await asyncio.sleep(0)

    def crash_soon(self, process, *, forgets=False):
        """Let a process die at once; what it has under way is torn down a moment later.

        ``forgets``: what it has written is gone with it.
        """
        process.alive = False
        if process.journal is not None:
            process.journal.lose()
            if forgets and process.name not in CLIENTS:
                self.journals.pop(process.name, None)
        if self.processes.get(process.name) is process:
            del self.processes[process.name]
        task = asyncio.ensure_future(process.crash())
        self.crashing.add(task)
        task.add_done_callback(self.crashing.discard)

    def crash_all_soon(self):
        """Let all processes but those of clients die at once."""
        for name, process in list(self.processes.items()):
            if name not in CLIENTS:
                self.crash_soon(process)

    async def stop(self):
        """End all in order: clients first, the registry last."""
        for name in reversed(list(self.makers)):
            process = self.processes.pop(name, None)
            if process is not None:
                await process.end()
        await asyncio.gather(*self.crashing)

    async def _run(self, process, url, front, *chains):
        process.front = front
        process.chains = list(chains)
        for chain in chains:
            await process.stack.enter_async_context(chain.running())
        if url:
            self.network.listening[url] = process

    async def _registry(self, process):
        made = memory_registry(period=LIFETIME, clock=self.clock)
        await self._run(process, REGISTRY, made, made)

    async def _manager(self, process):
        number = int(process.name[-1])
        made = Nsmgr(
            process.name,
            f"tcp://192.0.2.{number}:5001",
            registry=REGISTRY,
            peers=process.peers,
            tokens=Tokens(process.name, self.clock),
            labels={"nodeName": f"node{number}"},
            policies=(Authorize(()),),
            journal=process.journal,
            clock=self.clock,
        )
        front = Both(made.server, made.registry)
        await self._run(process, made.url, front, made.registry, made.onward, made.server)
        self.network.listening[f"unix:///{process.name}"] = process

    async def _forwarder(self, process):
        number = int(process.name[-1])
        tokens = Tokens(process.name, self.clock)
        register = self._registration(process, number, finds=True)
        mechanisms = [Kernel(), Vxlan(f"192.0.2.{number}", link_mtu=lambda: 1500, random=Random(number))]
        made = Forwarder(
            process.name,
            registry=register,
            datapath=self.driver(number, process),
            mechanisms=mechanisms,
            peers=process.peers,
            tokens=tokens,
            policies=(Authorize(()),),
            lifetime=LIFETIME,
            journal=process.journal,
            clock=self.clock,
        )
        await self._run(process, process.url, made.server, register, made.registry, made.onward, made.server)
        await self._register(process, register, "forwarder", p2p="true")

    def driver(self, number, process):
        """Return a node's driver, as a new process makes it."""
        return MortalDatapath(self.kernels[number], process, self.faults)

    def space(self, name):
        """Return the path of a client's or endpoint's namespace."""
        return f"/run/netns/{name}"

    async def _endpoint(self, process):
        node, service = ENDPOINTS[process.name]
        number = list(ENDPOINTS).index(process.name) + 1
        tokens = Tokens(process.name, self.clock)
        made = endpoint(
            process.name,
            Ipam([[f"10.0.{number}.0/29"], [f"fd00:{number}::/64"]]),
            mechanisms=[Kernel(inode_url=f"file://{self.space(process.name)}")],
            tokens=tokens,
            policies=(Authorize(()),),
            journal=process.journal,
            clock=self.clock,
        )
        register = self._registration(process, node)
        await self._run(process, process.url, made, made, register)
        await self._register(process, register, service, SERVICES[service], app=process.name)

    async def _middle(self, process):
        inside = Kernel(inode_url=f"file://{self.space(process.name)}", unnumbered=True)
        made = PassthroughEndpoint(
            process.name,
            labels={"app": MIDDLE},
            manager="unix:///nsmgr1",
            serves=[inside],
            asks=[inside],
            peers=process.peers,
            tokens=Tokens(process.name, self.clock),
            policies=(Authorize(()),),
            journal=process.journal,
            clock=self.clock,
        )
        register = self._registration(process, 1)
        await self._run(process, process.url, made.server, made.onward, made.server, register)
        await self._register(process, register, "secure", SERVICES["secure"], app=MIDDLE)

    async def _client(self, process):
        alive = self._looks_alive if process.name == CLIENTS[0] and self.kernels else None
        made = client(
            process.name,
            manager="unix:///nsmgr1",
            peers=process.peers,
            tokens=Tokens(process.name, self.clock),
            heal=Heal(alive, interval=3.0),
            function=(ClientInfo({"nodeName": "node1"}), KeepApart()),
            journal=process.journal,
            clock=self.clock,
        )
        await self._run(process, "", made, made)

    def _registration(self, process, node, *, finds=False):
        return registration(
            process.name,
            manager=f"unix:///nsmgr{node}",
            peers=process.peers,
            tokens=Tokens(process.name, self.clock),
            finds=finds,
            clock=self.clock,
        )

    async def _register(self, process, register, service, *entries, **labels):
        entry = NetworkServiceEndpoint(
            name=process.name,
            network_service_names=[service],
            network_service_labels={service: NetworkServiceLabels(labels=labels)},
            url=process.url,
        )
        await process.stack.enter_async_context(registered(register, [*entries, entry]))

    async def _looks_alive(self, connection):
        name = connection.mechanism.parameters["name"]
        here = [one for (_, found), one in self.kernels[1].interfaces.items() if found == name]
        return any(self.leads(1, one.wire_id) for one in here)

    # --- what clients do --------------------------------------------------------------------------------

    def lives(self, name):
        """Return the living connections of a client, by id."""
        process = self.processes.get(name)
        if process is None:
            return {}
        return {connection.id: connection for connection in begin_of(process.front).connections}

    def asked(self, name, slot, service, interface, **more):
        """Return a Request as a client sends it first."""
        made = Connection(id=f"{name}-{slot}", network_service=service, **more)
        preference = Kernel(inode_url=f"file://{self.space(name)}", name=interface).offer(made)
        return NetworkServiceRequest(connection=made, mechanism_preferences=[preference])

    def request(self, name, request, deadline=15.0):
        """Start a Request of a client; returns its task."""
        process = self.processes[name]
        call = Call(peer=OURSELVES).within(deadline)
        task = process.serve(process.front.request(call, request))
        self.requests.add(task)
        task.add_done_callback(self.requests.discard)
        return task

    def close(self, name, connection_id):
        process = self.processes[name]
        return process.serve(
            process.front.close(Call(peer=OURSELVES).within(15), Connection(id=connection_id))
        )

    def cancel_requests(self):
        for task in list(self.requests):
            task.cancel()

    async def held(self, name, connection_id):
        """Return what the manager still holds for a client that was restarted, as an nsc asks for it."""
        try:
            call = Call(peer=OURSELVES).within(5)
            return await held_connection(self.processes[name].front, call, connection_id, "KERNEL")
        except MeshError:
            return None

    async def steal(self, name, connection_id):
        """Close somebody else's connection, as its manager's monitor shows it; return what is answered."""
        manager = self.processes.get("nsmgr1")
        found = await self.held(name, connection_id)
        if found is None or manager is None:
            return None
        thief = Process(THIEF)
        cable = await self.network.peers(thief).get("unix:///nsmgr1")
        try:
            await cable.close(Call().within(15), found)
        except MeshError as error:
            return error
        return "closed"

    # --- what is there ----------------------------------------------------------------------------------

    async def told(self, number):
        """Return what a manager's monitor tells to whoever asks now, by connection id."""
        server = self.processes[f"nsmgr{number}"].front
        async with closing(server.monitor(Call(peer=OURSELVES), MonitorScopeSelector())) as events:
            async for event in events:
                return {key: copy_of(connection) for key, connection in event.connections.items()}
        raise AssertionError(f"nsmgr{number} tells nothing")

    def leads(self, node, wire_id):
        """Whether a wire has both its ends: two interfaces, or one on each node of a tunnel."""
        kernel = self.kernels[node]
        ends, tunnel = kernel.ends(wire_id), kernel.tunnels.get(wire_id)
        if tunnel is None:
            return len(ends) == 2
        return len(ends) == 1 and self.far_end(node, wire_id) is not None

    def far_end(self, node, wire_id):
        """Return the interface at the other end of a wire, on whichever node it is."""
        kernel = self.kernels[node]
        tunnel = kernel.tunnels.get(wire_id)
        if tunnel is None:
            both = kernel.wire(wire_id)
            return both[1] if both else None
        there = (tunnel.vni, tunnel.remote, tunnel.local, tunnel.remote_port, tunnel.local_port)
        for other in NODES:
            for key, far in self.kernels[other].tunnels.items():
                if (far.vni, far.local, far.remote, far.local_port, far.remote_port) == there:
                    ends = self.kernels[other].ends(key)
                    return ends[0] if ends else None
        return None

    def endpoint_chain(self, name):
        process = self.processes.get(name)
        return process.front if process else None

    def leases(self):
        """Return what each living endpoint has given out: addresses by endpoint and connection id."""
        found = {}
        for name in ENDPOINTS:
            chain = self.endpoint_chain(name)
            if chain is not None:
                for key, leases in element_of(chain, Ipam).leases.items():
                    found[name, key] = [address for lease in leases for address in (lease.src, lease.dst)]
        return found

    def known(self, name):
        """Return what the monitor of a role knows, by id."""
        for chain in self.processes[name].chains:
            for element in chain.elements:
                if isinstance(element, Monitor):
                    return {key: connection for key, (connection, _) in element.hub._known.items()}
        return {}


def reselecting(connection):
    again = copy_of(connection)
    again.ClearField("mechanism")
    again.network_service_endpoint_name = ""
    again.state = State.RESELECT_REQUESTED
    return again
