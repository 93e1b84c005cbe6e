"""Nodes and endpoints that die, for real: who notices, what becomes of their wires, what is left alone."""

import contextlib
import re
import signal
import subprocess
import time
from pathlib import Path

import datapath_lab as lab
import node_lab
import pytest
import vxlan_lab
from node_lab import until

from nsmesh.datapath import netns
from nsmesh.elements.watch_endpoints import GRACE

pytestmark = [pytest.mark.root, pytest.mark.timeout(150)]

DEAD = r"node 192\.0\.2\.2 does not answer"


def under(mesh, state):
    lab.run(mesh.spaces[2], "ip", "link", "set", "under", state)


def interface(mesh):
    """Return what a program in the client's pod knows its interface by."""
    link = lab.link(mesh.pods[1], "nsm-1")
    return link["ifindex"], link["address"]


def healed(mesh, endpoint):
    return f'"endpoint": "{endpoint}"' in mesh.log("nsc").rpartition("is down")[2]


def kinds(mesh):
    """Return what the wires of a late client are made of that are there: one in its node is a veth pair."""
    found = []
    for number in (1, 2):
        with contextlib.suppress(subprocess.CalledProcessError):
            found.append(lab.link(mesh.pods[1], f"late-{number}")["linkinfo"]["info_kind"])
    return sorted(found)


def on_both(mesh):
    """Start a client with two wires; say whether they lead to both nodes, else end it.

    They do not as long as a node that could not be reached is passed over, which is for some seconds.
    """
    mark = len(mesh.log("late")) if "late" in mesh.programs else 0
    late = mesh.client(1, "late", NSM_NETWORK_SERVICES="kernel://s/late-1,kernel://s/late-2")
    mesh.until("late", "all wires are up", after=mark)
    if kinds(mesh) == ["veth", "vxlan"]:
        return True
    node_lab.end(late, signal.SIGTERM)
    return False


@contextlib.contextmanager
def nodes():
    """Have two nodes with a wire from the first to an endpoint on the second, and one on the first too."""
    with node_lab.Mesh() as made:
        made.roles()
        made.endpoint(2)
        made.client(1)
        made.until("nsc", "all wires are up")
        made.endpoint(1, NSM_REGISTER_SERVICE="false")
        yield made


def test_nodes_that_die_and_what_is_no_death():
    """A cut of a moment, and the end of all that runs there, touch nothing. A node that is cut off is left.

    The client's interface keeps index and MAC, calls on their way there end, and it is known when the node is
    back. Then an endpoint dies, and its namespace after it: that is noticed long before the grace is over.
    """
    with nodes() as mesh:
        before, seen = interface(mesh), len(mesh.log("nsc"))
        lab.run(mesh.spaces[2], "sh", "-c", "ip link set under down; ip link set under up")
        for name in ("fwd2", "nsmgr2"):
            mesh.programs[name].send_signal(signal.SIGSTOP)
        time.sleep(1)
        assert "does not answer" not in mesh.log("fwd1") + mesh.log("fwd2")
        assert vxlan_lab.pings(mesh.pods[1], "10.9.2.0")
        for name in ("fwd2", "nsmgr2"):
            mesh.programs[name].send_signal(signal.SIGCONT)
        assert "is down" not in mesh.log("nsc")[seen:]
        assert interface(mesh) == before

        under(mesh, "down")
        mesh.until("fwd1", DEAD)
        until(lambda: vxlan_lab.pings(mesh.pods[1], "10.9.1.0"), why=lambda: mesh.log("nsc")[-3000:])
        # packets pass before it is said
        until(lambda: healed(mesh, "nse1"), why=lambda: mesh.log("nsc")[-3000:])
        assert interface(mesh) == before
        mesh.until("fwd1", "connection to tcp://192.0.2.2:5001 was closed")
        under(mesh, "up")
        until(lambda: on_both(mesh), 40, why=lambda: mesh.log("fwd1")[-3000:])

        node_lab.end(mesh.programs["nse2"])
        time.sleep(0.3)
        netns.delete(Path(mesh.pods[2]).name)
        until(lambda: kinds(mesh) == ["veth", "veth"], why=lambda: mesh.log("late")[-3000:])
        assert "an endpoint's process has died" in mesh.log("fwd2")
        [after] = re.findall(r'"after": ([\d.]+)', mesh.log("fwd2"))
        assert float(after) < GRACE / 2


def test_endpoints_that_die_in_a_namespace_that_lives_on():
    """One that is back in time keeps its wire as it is; one that stays away is left, though it answers."""
    with nodes() as mesh:
        before = interface(mesh)
        node_lab.end(mesh.programs["nse2"])
        mesh.endpoint(2, NSM_REGISTER_SERVICE="false")
        time.sleep(6)
        assert vxlan_lab.pings(mesh.pods[1], "10.9.2.0")
        assert interface(mesh) == before
        assert not healed(mesh, "nse1")

        node_lab.end(mesh.programs["nse2"])
        time.sleep(1)
        assert vxlan_lab.pings(mesh.pods[1], "10.9.2.0")
        until(lambda: vxlan_lab.pings(mesh.pods[1], "10.9.1.0"), why=lambda: mesh.log("nsc")[-3000:])
        until(lambda: healed(mesh, "nse1"), why=lambda: mesh.log("nsc")[-3000:])
        assert interface(mesh) == before


def test_what_a_client_keeps_when_its_endpoint_dies():
    """Index, MAC and the very addresses, which the other endpoint has free and would not have chosen."""
    prefix = {"NSM_CIDR_PREFIX": "[10.9.9.0/24],[fd09:9::/64]"}
    with node_lab.Mesh() as mesh:
        mesh.roles()
        mesh.endpoint(2, **prefix)
        for name in ("nsc", "late"):
            mesh.client(1, name, NSM_NETWORK_SERVICES=f"kernel://s/{name}")
            mesh.until(name, "all wires are up")
        mesh.endpoint(1, NSM_REGISTER_SERVICE="false", **prefix)

        def kept():
            link = lab.link(mesh.pods[1], "late")
            return link["ifindex"], link["address"], sorted(lab.addresses(mesh.pods[1], "late"))

        before = kept()
        assert "10.9.9.3/32" in str(before)
        node_lab.end(mesh.programs["nsc"], signal.SIGTERM)  # what the first has is free, there and here
        node_lab.end(mesh.programs["nse2"])
        netns.delete(Path(mesh.pods[2]).name)
        until(lambda: '"endpoint": "nse1"' in mesh.log("late"), why=lambda: mesh.log("late")[-3000:])
        assert kept() == before
        assert vxlan_lab.pings(mesh.pods[1], "10.9.9.2")
