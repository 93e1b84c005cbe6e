"""Two nodes for real: every role a process of its own, mTLS between them, VXLAN under the wire."""

import re
import signal
import time

import datapath_lab as lab
import node_lab
import pytest
import vxlan_lab

pytestmark = [pytest.mark.root, pytest.mark.timeout(90)]


@pytest.fixture
def mesh():
    with node_lab.Mesh() as found:
        found.roles()
        yield found


def wired(mesh, name="nsc"):
    mesh.until(name, "all wires are up")


def gone(path, name):
    limit = time.monotonic() + 10
    while name in lab.names(path):
        assert time.monotonic() < limit, f"{name} is still in {path}"
        time.sleep(0.05)


def test_a_wire_crosses_the_nodes(mesh):
    """Ping in both families, the MTU of the underlay less the header, a VNI that is even; nothing stays."""
    mesh.endpoint(2)
    client = mesh.client(1)
    wired(mesh)
    pod = mesh.pods[1]
    for address in ("10.9.2.0", "fd09:2::"):
        assert vxlan_lab.pings(pod, address), address
    assert lab.link(pod, "nsm-1")["mtu"] == 1450
    assert vxlan_lab.pings(pod, "10.9.2.0", 1450 - 28)
    assert not vxlan_lab.pings(pod, "10.9.2.0", 1450 - 27)
    data = vxlan_lab.tunnel(pod, "nsm-1")
    assert (data["local"], data["remote"], data["port"]) == (*node_lab.IPS, 4789)
    assert data["id"] % 2 == 0
    node_lab.end(client, signal.SIGTERM)
    gone(pod, "nsm-1")
    assert lab.names(mesh.pods[2]) == set()


@pytest.mark.parametrize("number", [1, 2])
def test_a_restarted_forwarder_adopts_the_wire(mesh, number):
    """It is killed and comes back: the same interface on both nodes, and the wire carries on meanwhile."""
    mesh.endpoint(2)
    mesh.client(1)
    wired(mesh)
    before = [lab.ip(pod, "link", "show") for pod in (mesh.pods[1], mesh.pods[2])]
    name = f"fwd{number}"
    mark = len(mesh.log(name))
    node_lab.end(mesh.forwarders[number])
    assert vxlan_lab.pings(mesh.pods[1], "10.9.2.0")
    mesh.forwarder(number)
    mesh.until(name, "wire applied", after=mark)
    outcomes = set(re.findall(r'"outcome": "(\w+)"', mesh.log(name)[mark:]))
    assert outcomes == {"unchanged"}
    assert [lab.ip(pod, "link", "show") for pod in (mesh.pods[1], mesh.pods[2])] == before
    assert vxlan_lab.pings(mesh.pods[1], "10.9.2.0")


def test_a_node_that_dies_is_left(mesh):
    """Its manager is killed: new Requests pass it over; its link is cut: wires that it had move away."""
    mesh.endpoint(2)
    mesh.client(1)
    wired(mesh)
    assert vxlan_lab.tunnel(mesh.pods[1], "nsm-1")["remote"] == node_lab.IPS[1]
    mesh.endpoint(1, NSM_REGISTER_SERVICE="false")
    lab.run(mesh.spaces[2], "ip", "link", "set", "under", "down")
    start = time.monotonic()
    for number in range(2):  # in turn: one of them would go to the dead node
        mesh.client(1, f"late{number}", NSM_NETWORK_SERVICES=f"kernel://s/late-{number}")
    for number in range(2):
        wired(mesh, f"late{number}")
    assert time.monotonic() - start < 15  # one Request's deadline
    limit = time.monotonic() + 20
    while not vxlan_lab.pings(mesh.pods[1], "10.9.1.0"):
        assert time.monotonic() < limit, "the wire has not moved"
    pod = mesh.pods[1]
    kinds = {
        lab.link(pod, name).get("linkinfo", {}).get("info_kind") for name in ("nsm-1", "late-0", "late-1")
    }
    assert kinds == {"veth"}


def test_a_forwarder_without_tunnel_address_says_what_to_set(mesh):
    """Local wires are made; one to another node is refused in one sentence that the client logs."""
    node_lab.end(mesh.forwarders[1], signal.SIGTERM)
    mark = len(mesh.log("fwd1"))
    mesh.forwarder(1, NSM_TUNNEL_IP="")
    mesh.until("fwd1", "NSM_TUNNEL_IP is not set", after=mark)
    mesh.until("fwd1", '"event": "registered"', after=mark)
    mesh.endpoint(2)
    mesh.client(1)
    mesh.until("nsc", r"no mechanism to offer to tcp://192.0.2.2:5001 for nse2: REMOTE is wanted")
