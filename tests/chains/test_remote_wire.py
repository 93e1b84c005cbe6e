"""Wires between nodes, decided: six segments, one tunnel that meets, and what goes wrong on the way."""

from __future__ import annotations

import asyncio

import pytest
from remote_mesh import RemoteMesh, entry

from nsmesh.chains.endpoint import PassthroughEndpoint
from nsmesh.core.call import Call
from nsmesh.core.errors import Exhausted, MeshError, Unavailable
from nsmesh.core.lookup import Lookup
from nsmesh.core.tokens import PlainTokens
from nsmesh.core.virtual import run
from nsmesh.datapath.base import TunnelTaken
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    ConnectionContext,
    Destination,
    EthernetContext,
    Match,
    NetworkService,
)


def scenario(body, *arguments, **options):
    async def main():
        async with RemoteMesh(*arguments, **options).running() as mesh:
            await body(mesh)

    run(main())


def interface(node, owner):
    (found,) = [end for end in node.kernel.interfaces.values() if end.netns == f"/run/netns/{owner}"]
    return found.port


def taken(node, times=1):
    """Let the next tunnels that a node is to make belong to other wires already."""
    node.datapath.fail("apply", TunnelTaken("that VNI belongs to another wire"), times=times)


def test_a_client_reaches_an_endpoint_of_another_node():
    """Six segments; one tunnel; the ends know each other; a refresh changes nothing; Close leaves nothing."""

    async def body(mesh):
        await mesh[2].offer()
        answer = await mesh[1].ask()
        names = [segment.name for segment in answer.path.path_segments]
        assert names == ["nsc1", "nsmgr1", "fwd1", "nsmgr2", "fwd2", "nse2"]
        assert (answer.network_service_endpoint_name, answer.payload) == ("nse2", "IP")
        assert answer.mechanism.type == "KERNEL"
        near, _ = mesh.wired(1, 2)
        metrics = answer.path.path_segments[2].metrics
        assert metrics["server_interface"] == "KERNEL/nsm-1"
        assert metrics["client_interface"] == f"VXLAN/{near.vni}"
        assert answer.path.path_segments[4].metrics["server_interface"] == f"VXLAN/{near.vni}"
        here, there = interface(mesh[1], "app1"), interface(mesh[2], "nse2")
        assert (here.addresses, there.addresses) == (
            ("10.0.2.1/32", "fd00:2::1/128"),
            ("10.0.2.0/32", "fd00:2::/128"),
        )
        assert {item.mac for item in here.neighbours} == {there.mac}
        assert {item.mac for item in there.neighbours} == {here.mac}
        assert [item.ip for item in here.neighbours] == ["10.0.2.0", "fd00:2::"]
        changes = [node.kernel.changes for node in mesh.nodes.values()]
        assert (await mesh[1].ask()).context == answer.context
        assert [node.kernel.changes for node in mesh.nodes.values()] == changes
        await mesh[1].close()
        assert mesh.empty
        assert mesh[2].ipam.leases == {}

    scenario(body)


def test_both_directions_have_vnis_of_their_own():
    """Even towards the higher address, odd towards the lower one."""

    async def body(mesh):
        await mesh[2].offer()
        await mesh[1].ask()
        assert mesh[1].tunnels[0].vni % 2 == 0
        await mesh[1].close()
        await mesh[2].manager.registry.unregister(Call(), entry("nse2", "intranet"))
        await mesh[1].offer()
        await asyncio.sleep(1)  # for the mirrors
        await mesh[2].ask()
        near, _ = mesh.wired(2, 1)
        assert near.vni % 2 == 1

    scenario(body)


def test_an_endpoint_of_the_same_node_needs_no_tunnel():
    """The forwarder goes to it directly: four segments and a pair, though REMOTE is known."""

    async def body(mesh):
        await mesh[1].offer()
        answer = await mesh[1].ask()
        assert len(answer.path.path_segments) == 4
        assert len(mesh[1].kernel.wires()) == 1
        assert mesh[1].tunnels == []
        assert answer.context.MTU == 0

    scenario(body)


@pytest.mark.parametrize("mtus", [(1500, 1400), (1400, 1500), (9000, 1400)])
def test_the_smaller_underlay_decides_the_mtu(mtus):
    """Both ends and the connection's context have the underlay's MTU less the header, whoever has less."""

    async def body(mesh):
        mesh[1].mtu, mesh[2].mtu = mtus
        await mesh[2].offer()
        answer = await mesh[1].ask()
        assert answer.context.MTU == 1350
        assert {interface(mesh[1], "app1").mtu, interface(mesh[2], "nse2").mtu} == {1350}
        assert {port.mtu for port in mesh.wired(1, 2)} == {1350}
        mesh[2].mtu = 1340
        assert (await mesh[1].ask()).context.MTU == 1290
        assert {interface(mesh[1], "app1").mtu, interface(mesh[2], "nse2").mtu} == {1290}

    scenario(body)


def test_a_client_may_want_less():
    """An MTU that is asked for stays where it fits."""

    async def body(mesh):
        await mesh[2].offer()
        answer = await mesh[1].ask(context=ConnectionContext(MTU=1300))
        assert answer.context.MTU == 1300
        assert interface(mesh[2], "nse2").mtu == 1300

    scenario(body)


@pytest.mark.parametrize("payload", ["ETHERNET", "MPLS", "L2TP"])
def test_payloads_but_ip_leave_neighbours_to_the_ends(payload):
    """They cross by VXLAN, too; no MAC is told and no neighbour is permanent."""

    async def body(mesh):
        await mesh[2].offer()
        answer = await mesh[1].ask()
        assert answer.payload == payload
        near, _ = mesh.wired(1, 2)
        assert answer.path.path_segments[2].metrics["client_interface"] == f"VXLAN/{near.vni}"
        assert (near.mac, near.peer_mac) == ("", "")
        assert interface(mesh[1], "app1").neighbours == interface(mesh[2], "nse2").neighbours == ()

    scenario(body, payload=payload)


def test_a_mac_that_is_asked_for_is_told():
    """The context's own MAC of the client stands above the derived one, on both nodes."""

    async def body(mesh):
        await mesh[2].offer()
        mac = "02:00:00:00:00:77"
        await mesh[1].ask(context=ConnectionContext(ethernet_context=EthernetContext(src_mac=mac)))
        assert interface(mesh[1], "app1").mac == mac
        assert {item.mac for item in interface(mesh[2], "nse2").neighbours} == {mac}

    scenario(body)


@pytest.mark.parametrize("number", [1, 2])
def test_a_taken_vni_is_exchanged_without_a_word(number):
    """Whether the node that asks has it already or the one that answers: the client gets its wire."""

    async def body(mesh):
        await mesh[2].offer()
        taken(mesh[number], 3)
        answer = await mesh[1].ask()
        near, _ = mesh.wired(1, 2)
        assert near.vni % 2 == 0
        assert answer.path.path_segments[2].metrics["client_interface"] == f"VXLAN/{near.vni}"
        assert len(mesh[2].ipam.leases) == 1
        changes = mesh[1].kernel.changes + mesh[2].kernel.changes
        await mesh[1].ask()
        assert mesh[1].kernel.changes + mesh[2].kernel.changes == changes

    scenario(body)


@pytest.mark.parametrize("number", [1, 2])
def test_a_node_without_a_free_tunnel_refuses(number):
    """After some tries the Request fails in one sentence, and nothing is left on either node."""

    async def body(mesh):
        await mesh[2].offer()
        taken(mesh[number], 100)
        with pytest.raises(Exhausted, match="no free tunnel was found for connection"):
            await mesh[1].ask()
        assert mesh.empty
        assert mesh[2].ipam.leases == {}

    scenario(body)


@pytest.mark.parametrize("number", [1, 2])
def test_a_restarted_forwarder_keeps_the_wire(number):
    """It remembers nothing, finds the wire as it was left, and the next refresh changes nothing."""

    async def body(mesh):
        await mesh[2].offer()
        answer = await mesh[1].ask()
        before = mesh.wired(1, 2)
        changes = [node.kernel.changes for node in mesh.nodes.values()]
        node = mesh[number]
        node.forwarder = node.new_forwarder()
        chains = (node.forwarder.registry, node.forwarder.onward, node.forwarder.server)
        async with chains[0].running(), chains[1].running(), chains[2].running():
            again = await mesh[1].ask()
            assert again.context == answer.context
            assert mesh.wired(1, 2) == before
            assert [node.kernel.changes for node in mesh.nodes.values()] == changes
            await mesh[1].close()
            assert mesh.empty

    scenario(body)


@pytest.mark.parametrize("dead", ["refuse", "silent"])
def test_a_dead_node_is_passed_over(dead):
    """The registry lists an endpoint whose node is gone: the next one is tried within the deadline."""

    async def body(mesh):
        await mesh[2].offer()
        await mesh[3].offer()
        getattr(mesh.peers, dead).add(mesh[2].url)
        start = asyncio.get_running_loop().time()
        for _ in range(2):
            answer = await mesh[1].ask()
            assert answer.network_service_endpoint_name == "nse3"
            await mesh[1].close()
        took = asyncio.get_running_loop().time() - start
        assert took < (0.01 if dead == "refuse" else 1.6)
        assert mesh.empty

    scenario(body, 3)


def test_an_endpoint_that_left_its_node_is_passed_over():
    """Its manager does not know it any more and says so; the next one is tried at once."""

    async def body(mesh):
        await mesh[3].offer()
        stale = entry("nse2", "intranet")
        stale.url = mesh[2].url
        await mesh.registry.register(Call(), stale)
        for _ in range(2):
            assert (await mesh[1].ask()).network_service_endpoint_name == "nse3"
            await mesh[1].close()

    scenario(body, 3)


def test_all_nodes_dead_is_one_sentence():
    """Each endpoint is named with what kept it from answering, and nothing is left."""

    async def body(mesh):
        await mesh[2].offer()
        mesh.peers.refuse.add(mesh[2].url)
        with pytest.raises(Unavailable, match=r"nse2: nobody listens at tcp://192.0.2.2:5001"):
            await mesh[1].ask()
        assert mesh.empty

    scenario(body)


def test_a_node_without_tunnels_says_so():
    """A forwarder that makes local wires alone offers nothing to another node."""

    async def body(mesh):
        await mesh[2].offer()
        with pytest.raises(
            MeshError, match=r"no mechanism to offer to tcp://192.0.2.2:5001 for nse2: REMOTE"
        ):
            await mesh[1].ask()

    scenario(body, remote=False)


def test_a_far_node_without_tunnels_says_so():
    """The refusal of the other node's forwarder reaches the client with its reason."""

    async def body(mesh):
        mesh[2].mechanisms[:] = [Kernel()]
        node = mesh[2]
        node.forwarder = node.new_forwarder()
        await mesh[2].offer()
        chains = (node.forwarder.registry, node.forwarder.onward, node.forwarder.server)
        async with chains[0].running(), chains[1].running(), chains[2].running():
            with pytest.raises(MeshError, match="VXLAN: not supported here"):
                await mesh[1].ask()
        assert mesh.empty

    scenario(body)


def test_an_apply_that_fails_on_one_node_leaves_nothing_on_the_other():
    """The near wire cannot be made though the far one was: the far one is taken away again."""

    async def body(mesh):
        await mesh[2].offer()
        mesh[1].datapath.fail("apply", Unavailable("the pod is gone"))
        with pytest.raises(MeshError, match="the pod is gone"):
            await mesh[1].ask()
        assert mesh.empty
        assert mesh[2].ipam.leases == {}

    scenario(body)


def test_a_transparent_function_on_another_node():
    """Client and gateway on one node, the firewall on the other: both wires cross, and ARP has to pass."""

    async def body(mesh):
        clock = mesh.clock
        inside = Kernel(inode_url="file:///run/netns/fw2", unnumbered=True)
        firewall = PassthroughEndpoint(
            "fw2",
            labels={"app": "firewall"},
            manager=mesh[2].manager.server,
            serves=[inside],
            asks=[inside],
            peers=mesh.peers,
            tokens=PlainTokens(clock),
            clock=clock,
        )
        mesh.peers.known["unix:///fw2"] = firewall.server
        service = NetworkService(
            name="intranet",
            payload="IP",
            matches=[
                Match(
                    source_selector={"app": "firewall"},
                    routes=[Destination(destination_selector={"app": "gateway"})],
                ),
                Match(routes=[Destination(destination_selector={"app": "firewall"})]),
            ],
        )
        async with firewall.onward.running(), firewall.server.running():
            await mesh[1].put(service)
            await mesh[1].offer(app="gateway")
            await mesh[2].put(entry("fw2", "intranet", app="firewall"))
            answer = await mesh[1].ask()
            names = [segment.name for segment in answer.path.path_segments]
            assert names == [
                "nsc1",
                "nsmgr1",
                "fwd1",
                "nsmgr2",
                "fwd2",
                "fw2",
                "nsmgr2",
                "fwd2",
                "nsmgr1",
                "fwd1",
                "nse1",
            ]
            assert sorted(port.vni for port in mesh[1].tunnels) == sorted(
                port.vni for port in mesh[2].tunnels
            )
            assert {port.vni % 2 for port in mesh[1].tunnels} == {0, 1}
            ports = [end.port for node in mesh.nodes.values() for end in node.kernel.interfaces.values()]
            assert len(ports) == 4
            assert all(port.neighbours == () for port in ports)
            assert {port.mtu for port in ports} == {1450}
            kept = copy_of(answer)
            assert (await mesh[1].ask()).context == kept.context
            await mesh[1].close()
            assert mesh.empty

    scenario(body)


def test_a_reselect_moves_the_wire_to_another_node():
    """When the node of its endpoint dies, a reselecting Request leads through the other one's tunnel."""

    async def body(mesh):
        await mesh[2].offer()
        answer = await mesh[1].ask()
        await mesh[3].offer()
        mesh.peers.refuse.add(mesh[2].url)
        again = await mesh[1].ask(state="RESELECT_REQUESTED")
        assert (answer.network_service_endpoint_name, again.network_service_endpoint_name) == ("nse2", "nse3")
        (tunnel,) = mesh[1].tunnels
        assert tunnel.remote == mesh[3].ip

    scenario(body, 3)


def test_a_request_that_comes_for_an_endpoint_elsewhere_is_refused():
    """No node wires between two other nodes, and none is left with half a wire."""

    async def body(mesh):
        await mesh[3].offer()
        stale = entry("nse3", "intranet")
        stale.url = mesh[2].url  # what the near node has read before the endpoint moved
        near = mesh[1].forwarder.registry

        class Old:
            async def find(self, call, query):
                async for item in near.find(call, query):
                    if (
                        hasattr(item, "network_service_endpoint")
                        and item.network_service_endpoint.name == "nse3"
                    ):
                        item.network_service_endpoint.url = mesh[2].url
                    yield item

        discover = next(
            element
            for element in mesh[1].forwarder.server.elements
            if type(element).__name__ == "DiscoverEndpoint"
        )
        discover._registry = Lookup(Old())
        with pytest.raises(MeshError, match="endpoint nse3 is not on this node"):
            await mesh[1].ask()
        assert mesh.empty
        assert mesh[3].ipam.leases == {}

    scenario(body, 3)


def test_connection_ids_of_others_do_not_meet():
    """Many clients of one node, each with its own tunnel to the same other node."""

    async def body(mesh):
        await mesh[2].offer()
        await asyncio.gather(*(mesh[1].ask(f"c-{number}", f"nsm-{number}") for number in range(20)))
        assert len({port.vni for port in mesh[1].tunnels}) == 20
        assert {port.vni for port in mesh[1].tunnels} == {port.vni for port in mesh[2].tunnels}
        await asyncio.gather(*(mesh[1].close(f"c-{number}") for number in range(20)))
        assert mesh.empty

    scenario(body)
