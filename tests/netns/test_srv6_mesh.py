"""SRV6 wires of a whole mesh: managers, forwarders and identities on two nodes with a router between them."""

import re

import datapath_lab as lab
import node_lab
import pytest
import srv6_lab
import vxlan_lab
from node_lab import until
from srv6_lab import PREFIXES, ROUTED, ip, pings

pytestmark = [*srv6_lab.MARKS, pytest.mark.timeout(150)]

SRV6 = {"NSM_MECHANISMS": "SRV6"}


@pytest.fixture
def mesh():
    """Give registry and managers, which speak over IPv6 through the router."""
    with node_lab.Mesh(nodes=srv6_lab.routed(), ips=ROUTED) as found:
        found.registry()
        for number in (1, 2):
            found.manager(number)
        yield found


def forwarders(mesh, *prefixes):
    for number, prefix in enumerate(prefixes, 1):
        mesh.forwarder(number, NSM_SRV6_PREFIX=prefix, **SRV6)
        mesh.until_registered(f"fwd{number}")


def test_a_client_reaches_an_endpoint_through_a_router(mesh):
    """Both families, the whole MTU; identifiers are from each node's prefix; a killed forwarder adopts it."""
    forwarders(mesh, *PREFIXES)
    mesh.endpoint(2)
    mesh.client(1)
    mesh.until("nsc", "all wires are up")
    pod = mesh.pods[1]
    for address in ("10.9.2.0", "fd09:2::"):
        assert pings(pod, address), address
    mtu = lab.link(pod, "nsm-1")["mtu"]
    assert mtu == 1500 - 78
    assert vxlan_lab.pings(pod, "10.9.2.0", mtu - 28)
    for number, prefix in enumerate(PREFIXES, 1):
        assert ip(mesh.spaces[number], srv6_lab.OURS).startswith(prefix.removesuffix("::/64"))

    before, mark = srv6_lab.snapshot(mesh.spaces[1]), len(mesh.log("fwd1"))
    node_lab.end(mesh.forwarders[1])
    assert pings(pod, "10.9.2.0")
    mesh.forwarder(1, NSM_SRV6_PREFIX=PREFIXES[0], **SRV6)
    mesh.until("fwd1", "wire applied", after=mark)
    assert set(re.findall(r'"outcome": "(\w+)"', mesh.log("fwd1")[mark:])) == {"unchanged"}
    assert srv6_lab.snapshot(mesh.spaces[1]) == before
    assert pings(pod, "10.9.2.0")


def test_without_a_prefix_that_is_routed_the_client_is_told(mesh):
    """The far node has none: no wire is made, nothing is left, and the client's log says what to set."""
    forwarders(mesh, PREFIXES[0], "")
    mesh.endpoint(2)
    mesh.client(1)
    mesh.until("nsc", "is not on the link of 2001:db8:a::1, and routers .* NSM_SRV6_PREFIX")
    places = (*mesh.spaces.values(), *mesh.pods.values())
    until(lambda: [lab.names(place) for place in places] == [{"under"}, {"under"}, set(), set()])
