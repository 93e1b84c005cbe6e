"""Two domains with a registry each, and a third registry that both ask for names with an @."""

import signal

import datapath_lab as lab
import node_lab
import pytest
import vxlan_lab
from node_lab import until

pytestmark = [pytest.mark.root, pytest.mark.timeout(150)]

SERVICE = "s@floating.test"


@pytest.fixture
def domains():
    """Give node 1 and node 2, each a domain of its own, and a registry that belongs to neither."""
    with node_lab.Mesh() as mesh:
        registry(mesh, "floating", 1)
        for number in (1, 2):
            registry(mesh, f"registry{number}", number, NSM_PROXY_REGISTRY_URL=mesh.url("floating"))
            mesh.manager(number, NSM_REGISTRY_URL=mesh.url(f"registry{number}"))
            mesh.forwarder(number)
        for number in (1, 2):
            mesh.until_registered(f"fwd{number}")
        yield mesh


def registry(mesh, name, number, **environment):
    mesh.start(name, mesh.spaces[number], "registry-memory", NSM_LISTEN_ON=mesh.url(name), **environment)
    mesh.until(name, "registry ready")


def test_a_client_of_one_domain_reaches_an_endpoint_of_the_other(domains):
    """By a name with an @, through a tunnel, in both families; it goes with its client.

    While the registry of such names is away the wire stays, and who asks is told who is silent. One that
    comes back without memory is told of the endpoint again.
    """
    mesh = domains
    mesh.endpoint(2, NSM_NAME="nse2@floating.test", NSM_SERVICE_NAMES=SERVICE)
    client = mesh.client(1, NSM_NETWORK_SERVICES=f"kernel://{SERVICE}/nsm-1")
    mesh.until("nsc", "all wires are up")
    for address in ("10.9.2.0", "fd09:2::"):
        assert vxlan_lab.pings(mesh.pods[1], address), address
    assert lab.link(mesh.pods[1], "nsm-1")["linkinfo"]["info_kind"] == "vxlan"

    node_lab.end(mesh.programs["floating"])
    late = mesh.client(1, "late", NSM_NETWORK_SERVICES=f"kernel://{SERVICE}/nsm-2")
    mesh.until("late", "request failed")
    assert "floating.sock" in mesh.log("late")
    assert vxlan_lab.pings(mesh.pods[1], "10.9.2.0")
    registry(mesh, "floating", 1)
    mesh.until("late", "all wires are up", seconds=60)
    for program in (client, late):
        node_lab.end(program, signal.SIGTERM)
    until(lambda: lab.names(mesh.pods[2]) == set())


def test_a_name_without_an_at_stays_in_its_domain(domains):
    """A client of the other domain is told that there is no such service; one of its own has its wire."""
    mesh = domains
    mesh.endpoint(2)
    mesh.client(2, "home")
    mesh.client(1, "abroad")
    mesh.until("home", "all wires are up")
    mesh.until("abroad", "request failed")
    assert "network service s is not found" in mesh.log("abroad")
    assert lab.names(mesh.pods[1]) == set()
