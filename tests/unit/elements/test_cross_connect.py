"""CrossConnectWire: one wire for each connection that both sides agreed to."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.deciding import DOWNSTREAM
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import Conflict, Internal, Invalid, Refused, Unavailable
from nsmesh.core.virtual import run
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.datapath.taken import InterfaceTaken
from nsmesh.elements.cross_connect import CrossConnectWire, namespace_identity
from nsmesh.elements.select_mechanism import SelectMechanism
from nsmesh.elements.translate_mechanism import TranslateMechanism
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.noop import Noop
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    Mechanism,
    NetworkServiceRequest,
    Path,
    PathSegment,
)


def kernel(name, netns):
    return Mechanism(
        cls="LOCAL", type="KERNEL", parameters={"name": name, "inodeURL": f"file:///run/netns/{netns}"}
    )


class Nse(Tail):
    """An endpoint: an interface of its own and a pair of addresses for each connection."""

    def __init__(self):
        self.interface = None
        self.addresses = ("10.0.0.0/32", "10.0.0.1/32")
        self.fault = None
        self.asked = 0
        self.closed = []
        self.wait = None

    async def request(self, call, request):
        self.asked += 1
        if self.wait:
            await self.wait()
        if self.fault:
            raise self.fault
        made = request.connection
        made.network_service_endpoint_name = "nse-1"
        made.mechanism.CopyFrom(self.interface or kernel(f"n{made.id[-6:]}", "nse"))
        ip = made.context.ip_context
        del ip.dst_ip_addrs[:]
        del ip.src_ip_addrs[:]
        ip.dst_ip_addrs.append(self.addresses[0])
        ip.src_ip_addrs.append(self.addresses[1])
        return made

    async def close(self, call, connection):
        self.closed.append(connection.id)


class Mesh:
    def __init__(self, **options):
        self.datapath = FakeDatapath()
        self.nse = Nse()
        plugins = [Kernel(), Noop()]
        self.wire = CrossConnectWire(self.datapath, plugins, **options)
        self.chain = chain(
            Begin(), SelectMechanism(plugins), self.wire, TranslateMechanism(), end=self.nse, name="fwd"
        )

    @property
    def wires(self):
        return self.datapath.kernel.wires()

    @property
    def clean(self):
        return not self.wires and not self.wire.keeps()

    async def ask(self, connection_id, mechanism=None, *, origin=None, behind=()):
        origin = origin or f"nsc-{connection_id}"
        segments = [PathSegment(name=origin, id=origin), *behind, PathSegment(name="fwd", id=connection_id)]
        made = Connection(id=connection_id, payload="IP", path=Path(index=1, path_segments=segments))
        preference = mechanism or kernel("nsm-1", "app")
        return await self.chain.request(
            Call(), NetworkServiceRequest(connection=made, mechanism_preferences=[preference])
        )

    async def again(self, answer):
        return await self.chain.request(Call(), NetworkServiceRequest(connection=copy_of(answer)))

    async def close(self, answer):
        await self.chain.close(Call(), answer)


def test_a_wire_joins_client_and_endpoint_until_close():
    """Both ends are as the endpoint answered; a refresh changes nothing; Close leaves nothing."""

    async def scenario():
        mesh = Mesh()
        answer = await mesh.ask("c1")
        near, far = mesh.wires["c1"]
        assert (near.netns, near.port.name) == ("/run/netns/app", "nsm-1")
        assert near.port.addresses == ("10.0.0.1/32",)
        assert (far.netns, far.port.addresses) == ("/run/netns/nse", ("10.0.0.0/32",))
        assert answer.mechanism.parameters["name"] == "nsm-1"
        changes = mesh.datapath.kernel.changes
        await mesh.again(answer)
        assert mesh.datapath.kernel.changes == changes
        await mesh.close(answer)
        assert mesh.clean
        assert mesh.nse.closed == ["c1"]

    run(scenario())


def test_a_refresh_brings_changed_addresses_to_the_wire():
    """The desired state is applied each time."""

    async def scenario():
        mesh = Mesh()
        answer = await mesh.ask("c1")
        mesh.nse.addresses = ("10.0.0.2/32", "10.0.0.3/32")
        await mesh.again(answer)
        assert mesh.wires["c1"][0].port.addresses == ("10.0.0.3/32",)

    run(scenario())


def test_failures_of_a_first_request_leave_nothing():
    """Whether the endpoint or the datapath fails: no wire, no interface held, the endpoint closed."""

    async def scenario():
        mesh = Mesh()
        mesh.nse.fault = Refused("no")
        with pytest.raises(Refused):
            await mesh.ask("c1")
        assert mesh.clean
        mesh.nse.fault = None
        mesh.datapath.fail("apply", Unavailable("no kernel"))
        with pytest.raises(Unavailable):
            await mesh.ask("c1")
        assert mesh.clean
        assert mesh.nse.closed == ["c1", "c1"]
        await mesh.ask("c1")

    run(scenario())


def test_a_failed_refresh_keeps_wire_and_interfaces():
    """The old connection stays as it is, and so does what it holds."""

    async def scenario():
        mesh = Mesh()
        answer = await mesh.ask("c1")
        mesh.datapath.fail("apply", Unavailable("no kernel"))
        mesh.nse.interface = kernel("other", "nse")
        with pytest.raises(Unavailable):
            await mesh.again(answer)
        assert mesh.wires["c1"][1].port.name == "nc1"
        assert {name for _, name in mesh.wire._held.places} == {"nsm-1", "nc1"}
        await mesh.again(answer)
        assert {name for _, name in mesh.wire._held.places} == {"nsm-1", "other"}

    run(scenario())


def test_an_interface_that_another_connection_holds_is_refused():
    """Before the endpoint is asked, and without harm to the one that has it."""

    async def scenario():
        mesh = Mesh()
        answer = await mesh.ask("c1")
        with pytest.raises(Conflict) as caught:
            await mesh.ask("c2")
        assert "interface nsm-1 in network namespace /run/netns/app is held by connection c1" in str(
            caught.value
        )
        assert mesh.nse.asked == 1
        await mesh.ask("c3", kernel("nsm-2", "app"))
        assert set(mesh.wires) == {"c1", "c3"}
        await mesh.close(answer)
        await mesh.ask("c2")

    run(scenario())


def test_the_same_namespace_by_another_path_is_the_same():
    """Interfaces are compared by what the paths lead to."""

    async def scenario():
        mesh = Mesh(identify=lambda path: 26)
        await mesh.ask("c1")
        with pytest.raises(Conflict):
            await mesh.ask("c2", kernel("nsm-1", "elsewhere"))

    run(scenario())
    assert namespace_identity("/proc/self/ns/net") == namespace_identity("/proc/thread-self/ns/net")
    assert namespace_identity("/no/such/place") == "/no/such/place"


def test_two_first_requests_at_once_do_not_share_an_interface():
    """The interface is held from before the endpoint is asked."""

    async def scenario():
        mesh = Mesh()

        async def slow():
            await asyncio.sleep(1)

        mesh.nse.wait = slow
        results = await asyncio.gather(mesh.ask("c1"), mesh.ask("c2"), return_exceptions=True)
        assert [type(result) for result in results] == [Connection, Conflict]
        assert set(mesh.wires) == {"c1"}

    run(scenario())


def test_a_restarted_client_takes_its_own_interface_over():
    """The same first segment means the same client: its lost connection is closed, and it gets a new wire."""

    async def scenario():
        mesh = Mesh()
        await mesh.ask("c1", origin="nsc-0")
        await mesh.ask("c2", origin="nsc-0")
        assert set(mesh.wires) == {"c2"}
        assert mesh.nse.closed == ["c1"]

    run(scenario())


def test_a_path_does_not_take_over_from_itself():
    """A chain of functions that wants one interface twice is refused, and does not wait for itself."""

    async def scenario():
        mesh = Mesh()
        await mesh.ask("c1", origin="nsc-0")
        with pytest.raises(Conflict):
            await mesh.ask("c2", origin="nsc-0", behind=[PathSegment(name="fwd", id="c1")])

    run(scenario())


def test_what_cannot_be_wired_names_the_endpoint():
    """The endpoint's wrong answer is told with its name; nothing is left of it."""

    async def scenario():
        mesh = Mesh()
        mesh.nse.addresses = ("10.0.0.0", "10.0.0.1/32")
        with pytest.raises(Invalid) as caught:
            await mesh.ask("c1")
        assert "endpoint nse-1 answered what cannot be wired: dst_ip_addrs has '10.0.0.0' without" in str(
            caught.value
        )
        assert mesh.clean

    run(scenario())


def test_mechanisms_that_do_not_meet():
    """NOOP on both sides makes no wire; on one side it is refused; none at all is a fault."""
    noop = Mechanism(cls="LOCAL", type="NOOP")

    async def scenario():
        mesh = Mesh()
        mesh.nse.interface = noop
        answer = await mesh.ask("c1", noop)
        assert mesh.wires == {}
        await mesh.close(answer)
        with pytest.raises(Refused, match="endpoint nse-1 answered NOOP to a client with KERNEL"):
            await mesh.ask("c2")
        mesh.nse.interface = Mechanism(cls="REMOTE", type="VXLAN")
        with pytest.raises(Invalid, match="the endpoint's mechanism VXLAN cannot be wired here"):
            await mesh.ask("c3")
        assert mesh.clean
        bare = chain(CrossConnectWire(mesh.datapath, [Kernel()]), end=Tail())
        made = Connection(id="c4", mechanism=kernel("nsm-1", "app"))
        with pytest.raises(Internal):
            await bare.request(Call(), NetworkServiceRequest(connection=made))

    run(scenario())


def test_an_endpoint_elsewhere_in_a_namespace_of_its_own_is_not_guessed():
    """An answer that would mean the forwarder's own namespace is refused."""

    async def scenario():
        mesh = Mesh()
        mesh.nse.interface = kernel("eth0", "x")
        mesh.nse.interface.parameters["inodeURL"] = "file:///proc/thread-self/ns/net"
        with pytest.raises(Invalid, match="whoever reads it"):
            await mesh.ask("c1")
        assert mesh.clean

    run(scenario())


def test_close_reaches_the_endpoint_when_the_datapath_fails():
    """A wire that cannot be removed now does not keep the endpoint's address."""

    async def scenario():
        mesh = Mesh()
        answer = await mesh.ask("c1")
        mesh.datapath.fail("remove", Unavailable("no kernel"))
        with pytest.raises(Unavailable):
            await mesh.close(answer)
        assert mesh.nse.closed == ["c1"]
        assert not mesh.wire.keeps()

    run(scenario())


def test_a_taken_name_is_the_endpoints_only_where_it_is():
    """The client's own name is refused plainly; the endpoint's can be exchanged behind its back."""

    async def scenario():
        mesh = Mesh()
        for netns, name, far in (
            ("/run/netns/app", "nsm-1", False),
            ("/run/netns/nse", "nc1", True),
        ):
            mesh.datapath.fail("apply", InterfaceTaken("it exists already", netns=netns, name=name))
            with pytest.raises(Conflict) as caught:
                await mesh.ask("c1")
            assert isinstance(caught.value, InterfaceTaken) == far
        assert mesh.clean

    run(scenario())


def test_a_namespace_that_came_as_a_descriptor_is_no_mistake_after_a_restart():
    """It comes again with the client's next Request; what the endpoint's path leads to is held meanwhile."""

    async def scenario():
        mesh = Mesh()
        call = Call()
        call.state.set(DOWNSTREAM, kernel("n1", "nse"))
        named = Mechanism(
            cls="LOCAL", type="KERNEL", parameters={"name": "nsm-1", "inodeURL": "inode://4/77"}
        )
        segments = [PathSegment(name="nsc", id="nsc-0"), PathSegment(name="fwd", id="c1")]
        path = Path(index=1, path_segments=segments)
        await mesh.wire.resume(call, Connection(id="c1", mechanism=named, path=path))
        assert mesh.wire.keeps() == {"c1"}
        mesh.nse.interface = kernel("n1", "nse")
        with pytest.raises(InterfaceTaken, match=r"interface n1 .* is held by connection c1 of nsc"):
            await mesh.ask("c2")


def test_a_client_that_was_not_answered_gets_its_interface_from_what_it_lost():
    """Its namespace came as a descriptor: nothing is held after a restart, the interface says whose it is."""

    async def scenario():
        mesh = Mesh()
        await mesh.ask("c1", origin="nsc-0")
        await mesh.ask("c2", kernel("nsm-2", "app"), origin="nsc-1")
        for connection_id in ("c1", "c2"):
            mesh.wire._held.forget(connection_id)
        taken = "it exists already"
        mesh.datapath.fail("apply", InterfaceTaken(taken, netns="/run/netns/app", name="nsm-1", owner="c2"))
        with pytest.raises(Conflict):
            await mesh.ask("c3", origin="nsc-0")
        assert (set(mesh.wires), mesh.nse.closed) == ({"c1", "c2"}, ["c3"]), "another's stays"
        mesh.datapath.fail("apply", InterfaceTaken(taken, netns="/run/netns/app", name="nsm-1", owner="c1"))
        await mesh.ask("c4", origin="nsc-0")
        assert (set(mesh.wires), mesh.nse.closed) == ({"c2", "c4"}, ["c3", "c1"])

    run(scenario())
