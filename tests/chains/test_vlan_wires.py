"""Wires onto VLANs through whole chains: client, manager, forwarder and the endpoint that is asked itself."""

from __future__ import annotations

import pytest
from remote_mesh import RemoteMesh, entry

from nsmesh.chains.endpoint import endpoint
from nsmesh.core.call import Call
from nsmesh.core.errors import MeshError
from nsmesh.core.tokens import PlainTokens
from nsmesh.core.virtual import run
from nsmesh.endpoints.base import RemoteVlanEndpoint
from nsmesh.endpoints.options import read_options
from nsmesh.endpoints.remote_vlan import RemoteVlanOptions
from nsmesh.mechanisms.vlan import Vlan
from nsmesh.model.tunnels import BridgePort, VlanPort

SERVICES = "intranet { vlan: 100; via: gw-1 }"


def with_vlans(mesh, url, uplinks=({"gw-1": "eth1"}, {"gw-1": "eth7"}), port=VlanPort):
    """Give both nodes something that leads to VLANs, and the mesh an endpoint at ``url``."""
    for node, found in zip(mesh.nodes.values(), uplinks, strict=True):
        ways = {via: lambda vlan, name=name: port(name, vlan, 9000) for via, name in found.items()}
        node.mechanisms.append(Vlan(ways))
        node.forwarder = node.new_forwarder()
    made = RemoteVlanEndpoint(
        "vlans", read_options(RemoteVlanOptions, {"services": SERVICES}, {}, endpoint="vlans")
    )
    served = endpoint(
        "vlans",
        *made.elements(),
        mechanisms=made.mechanisms("file:///x"),
        tokens=PlainTokens(mesh.clock),
        clock=mesh.clock,
    )
    mesh.peers.known[url] = served
    return served


def at(url):
    """Return the registration of the endpoint, as it is sent to the registry."""
    made = entry("vlans", "intranet")
    made.url = url
    return made


@pytest.mark.parametrize("payload", ["ETHERNET", "IP"])
@pytest.mark.parametrize("url", ["tcp://192.0.2.77:5003", "unix:///vlans"])
def test_each_forwarder_finds_its_own_way(url, payload):
    """The endpoint may be anywhere; each client's node has its own interface for the way that it names."""

    async def main():
        mesh = RemoteMesh(payload=payload)
        served = with_vlans(mesh, url)
        async with mesh.running(), served.running():
            await mesh.registry.register(Call(), at(url))
            answers = [await mesh[number].ask(f"c-{number}") for number in (1, 2)]
            assert [list(one.context.ip_context.src_ip_addrs) for one in answers] == [
                ["169.254.0.1/16"],
                ["169.254.0.2/16"],
            ]
            assert [one.context.MTU for one in answers] == [9000, 9000]
            names = [segment.name for segment in answers[0].path.path_segments]
            assert names == ["nsc1", "nsmgr1", "fwd1", "vlans"]
            assert mesh[1].tunnels == [VlanPort("eth1", 100, 9000)]
            assert mesh[2].tunnels == [VlanPort("eth7", 100, 9000)]
            (interface,) = mesh[1].kernel.interfaces.values()
            assert (interface.port.mtu, interface.port.neighbours) == (9000, ())
            again = await mesh[1].ask("c-1")
            assert list(again.context.ip_context.src_ip_addrs) == ["169.254.0.1/16"]
            assert mesh[1].datapath.kernel.made == 1
            await mesh[1].close("c-1")
            assert (mesh[1].tunnels, len(mesh[2].tunnels)) == ([], 1)

    run(main())


def test_a_node_without_the_way_says_so():
    """The client's error names what the endpoint wanted and what the node has; nothing is left."""

    async def main():
        mesh = RemoteMesh()
        served = with_vlans(mesh, "unix:///vlans", uplinks=({"gw-2": "eth1"}, {}))
        async with mesh.running(), served.running():
            await mesh.registry.register(Call(), at("unix:///vlans"))
            with pytest.raises(MeshError, match="via gw-1, and no interface or bridge of this node is that"):
                await mesh[1].ask()
            assert not mesh[1].kernel.interfaces

    run(main())


@pytest.mark.parametrize("port", [VlanPort, BridgePort])
def test_a_vlan_is_not_given_by_way_of_another_node(port):
    """An endpoint that registered by a manager is found on that node: the error says what to do."""

    async def main():
        mesh = RemoteMesh(payload="ETHERNET")
        served = with_vlans(mesh, "unix:///vlans", port=port)
        async with mesh.running(), served.running():
            await mesh[2].put(at("unix:///vlans"))
            with pytest.raises(MeshError, match="was asked for it by way of another node"):
                await mesh[1].ask()
            assert mesh.empty

    run(main())
