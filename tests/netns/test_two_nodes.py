"""Two nodes for real: every role a process of its own, mTLS between them, VXLAN under the wire."""

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import datapath_lab as lab
import node_lab
import pytest
import vxlan_lab

from nsmesh.datapath.abilities import lacks

pytestmark = [pytest.mark.root, pytest.mark.timeout(150)]


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
    for number in range(2):  # in turn: one of them would go to the dead node
        mesh.client(1, f"late{number}", NSM_NETWORK_SERVICES=f"kernel://s/late-{number}")
    for number in range(2):
        wired(mesh, f"late{number}")
        assert "request failed" not in mesh.log(f"late{number}")  # one Request was enough
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


WIREGUARD = {"NSM_MECHANISMS": "WIREGUARD"}


@pytest.fixture
def encrypted():
    if reason := lacks("WIREGUARD"):
        pytest.skip(reason)
    with node_lab.Mesh() as found:
        found.roles(**WIREGUARD)
        yield found


def test_an_encrypted_wire_shows_nothing_of_what_it_carries(encrypted, tmp_path):
    """WIREGUARD on both nodes: what crosses the underlay is UDP, and no byte of the pattern is in it."""
    encrypted.endpoint(2)
    client = encrypted.client(1)
    wired(encrypted)
    pod, capture = encrypted.pods[1], tmp_path / "under.pcap"
    under = ["ip", "netns", "exec", Path(encrypted.spaces[1]).name]
    pattern, found = "nsmsecretnsmsecr", []
    watching = subprocess.Popen(
        [*under, *["tcpdump", "--immediate-mode", "-U", "-i", "under", "-w"], str(capture)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "listening" in watching.stderr.readline()
        inside = ["ip", "netns", "exec", Path(pod).name]
        for address in ("10.9.2.0", "fd09:2::"):
            ping = f"ping -c 3 -i 0.1 -s 400 -p {pattern.encode().hex()} {address}".split()
            found.append(subprocess.run([*inside, *ping], check=True, capture_output=True).returncode)
        time.sleep(0.3)
    finally:
        watching.terminate()
        watching.wait(5)
    seen = capture.read_bytes()
    assert len(seen) > 12 * 400
    assert not any(pattern[turn : turn + 6].encode() in seen for turn in range(8))
    assert lab.link(pod, "nsm-1")["mtu"] == 1440
    assert vxlan_lab.pings(pod, "10.9.2.0", 1440 - 28)
    assert not vxlan_lab.pings(pod, "10.9.2.0", 1440 - 27)
    node_lab.end(client, signal.SIGTERM)
    gone(pod, "nsm-1")


def test_an_encrypted_wire_comes_back_with_its_forwarder(encrypted):
    """A killed forwarder takes programs and keys along; its successor makes the wire anew, with new ones."""
    encrypted.endpoint(2)
    encrypted.client(1)
    wired(encrypted)
    node_lab.end(encrypted.forwarders[1])
    mark = len(encrypted.log("fwd1"))
    encrypted.forwarder(1, **WIREGUARD)
    encrypted.until("fwd1", "wire applied", after=mark, seconds=30)
    limit = time.monotonic() + 10
    while not vxlan_lab.pings(encrypted.pods[1], "10.9.2.0"):
        assert time.monotonic() < limit, encrypted.log("fwd1")[-3000:]


def without_wireguard(mesh):
    """Return a PATH with a wireguard-go that is there and fails."""
    folder = mesh.folder / "bin"
    folder.mkdir()
    for program in ("setpriv", "unshare", "sh", "mount", "nsenter"):
        (folder / program).symlink_to(shutil.which(program))
    (folder / "wireguard-go").write_text("#!/bin/sh\nexit 1\n")
    (folder / "wireguard-go").chmod(0o755)
    return str(folder)


def mtus(mesh):
    """Return the MTUs of a wire's interfaces, at both ends."""
    pods = mesh.pods.values()
    return {lab.link(pod, name)["mtu"] for pod in pods for name in lab.names(pod) - {"lo"}}


def test_where_one_node_cannot_the_next_preference_is_tried():
    """Both would rather have WIREGUARD, and its program fails; VXLAN is agreed on, and its MTU counts."""
    with node_lab.Mesh() as mesh:
        mesh.roles(NSM_MECHANISM_PRIORITY="WIREGUARD", PATH=without_wireguard(mesh))
        mesh.endpoint(2)
        mesh.client(1)
        wired(mesh)
        assert vxlan_lab.pings(mesh.pods[1], "10.9.2.0")
        assert vxlan_lab.tunnel(mesh.pods[1], "nsm-1")["remote"] == node_lab.IPS[1]
        mesh.until("fwd2", "mechanism refused: try the next")
        assert mtus(mesh) == {1450}


def test_where_the_asking_node_cannot_the_next_offer_is_agreed_on():
    """The serving node had agreed to WIREGUARD, and gives it up again, with its MTU, at both ends."""
    if reason := lacks("WIREGUARD"):
        pytest.skip(reason)
    with node_lab.Mesh() as mesh:
        own = {1: {"PATH": without_wireguard(mesh)}, 2: {}}
        mesh.registry()
        for number in (1, 2):
            mesh.manager(number)
            mesh.forwarder(number, NSM_MECHANISM_PRIORITY="WIREGUARD", **own[number])
        for number in (1, 2):
            mesh.until_registered(f"fwd{number}")
        mesh.endpoint(2)
        mesh.client(1)
        wired(mesh)
        mesh.until("fwd1", "mechanism refused: try the next")
        assert vxlan_lab.pings(mesh.pods[1], "10.9.2.0")
        assert vxlan_lab.tunnel(mesh.pods[1], "nsm-1")["remote"] == node_lab.IPS[1]
        assert mtus(mesh) == {1450}


def test_tunnels_may_end_out_of_the_pods_reach():
    """With NSM_TUNNELS_APART pods on both nodes have a veth, and the nodes the tunnel; nothing stays."""
    with node_lab.Mesh() as mesh:
        mesh.roles(NSM_TUNNELS_APART="true")
        mesh.endpoint(2)
        client = mesh.client(1)
        wired(mesh)
        pod = mesh.pods[1]
        for address in ("10.9.2.0", "fd09:2::"):
            assert vxlan_lab.pings(pod, address), address
        assert lab.link(pod, "nsm-1")["linkinfo"]["info_kind"] == "veth"
        assert len(lab.names(mesh.spaces[1])) == 3
        node_lab.end(client, signal.SIGTERM)
        gone(pod, "nsm-1")
        limit = time.monotonic() + 10
        while lab.names(mesh.spaces[1]) != {"under"}:
            assert time.monotonic() < limit, lab.names(mesh.spaces[1])
            time.sleep(0.05)
