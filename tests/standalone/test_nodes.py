"""A mesh of several nodes on one host: wires that cross, places, faults, and an end without traces."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mesh_lab import Lab, documents, is_gone, ping, responder, until

from nsmesh.datapath import netns
from nsmesh.datapath.netlink import Netlink
from nsmesh.datapath.offloads import joins_received

pytestmark = [pytest.mark.root, pytest.mark.timeout(90)]


def at(document, node):
    """Put an endpoint of :func:`responder` on a node."""
    return document.replace("spec:", f"spec:\n  node: {node}", 1)


def client(name, service="ping", node=""):
    return f"""
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: {name}
  annotations: {{networkservicemesh.io: kernel://{service}/nsm-1}}
spec: {{node: "{node}"}}
"""


def host_links():
    done = subprocess.run(["ip", "-j", "link"], capture_output=True, check=True)
    return {link["ifname"] for link in json.loads(done.stdout)}


def peer_of(mesh, client):
    """Return the first address at the other end of a client's only wire."""
    [row] = [row for row in mesh.get("connections") if row["client"] == client]
    return row["peer_address"][0].partition("/")[0]


@pytest.fixture(scope="module")
def mesh():
    before = host_links()
    with Lab("n") as lab:
        lab.up("--nodes", "2", "--underlay-mtu", "1400")
        lab.apply(at(responder(prefix='"[172.28.2.0/24],[fd28:2::/64]"'), "node2")).ok()
        assert host_links() == before
        yield lab
    assert host_links() == before


def pid_of(mesh, name):
    return next(row["pid"] for row in mesh.status()["roles"] if row["name"].endswith(name))


def test_a_wire_crosses_from_node_to_node(mesh):
    """Six hops over two nodes; both families; the underlay's MTU less the header; all of it is shown."""
    said = mesh.apply(client("app", node="node1")).ok().out
    assert re.search(
        r"hop forwarder-\S+-node1: client_interface VXLAN/\d+, server_interface KERNEL/nsm-1", said
    )
    [row] = mesh.get("connections")
    assert row["nodes"] == ["node1", "node2"]
    assert [
        hop.removeprefix(f"nsmgr-{mesh.mesh}-").removeprefix(f"forwarder-{mesh.mesh}-") for hop in row["path"]
    ] == [
        "app",
        "node1",
        "node1",
        "node2",
        "node2",
        "responder",
    ]
    assert row["mtu"] == 1350
    assert ping(f"{mesh.mesh}.app", "172.28.2.0")
    assert ping(f"{mesh.mesh}.app", "fd28:2::")
    with netns.call_in(f"{netns.RUN_NETNS}/{mesh.mesh}.app", Netlink) as pod:
        assert not joins_received(pod.fileno(), "nsm-1")  # no underlay between namespaces cuts segments
    assert mesh.row("endpoints", "responder")["node"] == "node2"
    assert mesh.row("clients", "app")["node"] == "node1"
    managers = {row["node"]: row for row in mesh.get("managers")}
    assert {name: row["connections"] for name, row in managers.items()} == {"node1": 1, "node2": 0}
    assert managers["node2"]["url"] == "tcp://100.64.0.2:5001"
    for row in mesh.get("forwarders"):
        assert row["mechanisms"][:2] == ["KERNEL", "VXLAN"]
        missing = {text.partition(": ")[0] for text in row["lacks"]}
        here = set(row["mechanisms"]) - {"KERNEL", "MEMIF"}
        assert missing | here == {"VXLAN", "GENEVE", "GRE", "SRV6", "WIREGUARD"}
        assert row["wires"] == 1
    wide = mesh.nsm("get", "forwarders", "-o", "wide").ok().out
    assert "KERNEL,VXLAN" in wide
    mesh.nsm("delete", "workload", "app").ok()
    assert mesh.get("connections") == []


def test_a_client_on_the_node_of_its_endpoint_needs_no_tunnel(mesh):
    """``nsm connect --node``: asked at the endpoint's own manager, the wire stays on the node."""
    space = mesh.namespace("near")
    mesh.nsm("connect", "kernel://ping/nsm-1", "--netns", space, "--node", "node2").ok()
    [row] = mesh.get("connections")
    assert (row["nodes"], len(row["path"])) == (["node2"], 4)
    assert ping(space, "172.28.2.0")
    mesh.nsm("connect", "kernel://ping/nsm-2", "--netns", space, "--name", "far", "--node", "node1").ok()
    assert mesh.row("clients", "far")["node"] == "node1"
    mesh.nsm("disconnect", "--netns", space).ok()
    until(lambda: mesh.links(space) == [])


def test_what_says_no_node_goes_where_the_fewest_are(mesh):
    """Endpoints and workloads spread over the nodes, and stay where they are when they are applied again."""
    names = [f"spread{number}" for number in range(4)]
    text = documents(
        *(f"apiVersion: nsmesh/v1\nkind: Workload\nmetadata: {{name: {name}}}\nspec: {{}}" for name in names)
    )
    mesh.apply(text).ok()
    nodes = [mesh.row("clients", name)["node"] for name in names]
    assert sorted(nodes) == ["node1", "node1", "node2", "node2"] or sorted(nodes).count("node1") == 3
    mesh.apply(text).ok()
    assert [mesh.row("clients", name)["node"] for name in names] == nodes
    mesh.nsm("delete", "workload", *names).ok()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (client("a", node="node3"), "workload a: there is no node node3"),
        (at(responder("b"), "nod2"), "endpoint b: there is no node nod2"),
        (client("node1"), "workload node1: a role of the mesh has that name"),
        (client("underlay"), "workload underlay: a role of the mesh has that name"),
        (responder("nsmgr-node2"), "endpoint nsmgr-node2: a role of the mesh has that name"),
    ],
)
def test_mistakes_change_nothing(mesh, text, says):
    """A node that is not there and a name of the mesh's own are told before anything is done."""
    mesh.apply(text).fails(says)
    assert mesh.get("clients") == []


def test_another_number_of_nodes_is_no_silent_wish(mesh):
    """``nsm up`` of a mesh that is up says how many it has; the same number is fine, and so is none."""
    mesh.nsm("up", "--nodes", "3").fails("is up already, with 2 nodes", "take it down first")
    assert "is up already" in mesh.nsm("up", "--nodes", "2").ok().out
    assert "is up already" in mesh.nsm("up").ok().out


def test_each_hop_is_shown_with_its_node(mesh):
    """The functions in the middle and both ends too; ``nsm status`` says it of endpoints and workloads."""
    mesh.apply(client("seen", node="node1")).ok()
    [row] = mesh.get("connections")
    assert [hop["node"] for hop in row["hops"]] == ["node1"] * 3 + ["node2"] * 3
    assert all(hop["expires"] for hop in row["hops"])
    told = mesh.nsm("describe", "connection", "seen-0").ok().out
    assert re.search(r"INDEX +NAME +NODE +ID +EXPIRES +CLIENT INTERFACE +SERVER INTERFACE", told)
    assert re.search(r"5 +responder +node2 ", told)
    said = mesh.nsm("status").ok().out
    assert re.search(r"responder +icmp-responder +ready +node2 ", said)
    assert re.search(r"seen +up +1/1 +node1 ", said)
    mesh.nsm("delete", "workload", "seen").ok()


def test_a_node_is_wanted_that_connect_does_not_find(mesh):
    """Likewise for clients that are wired by hand."""
    space = mesh.namespace("lost")
    done = mesh.nsm("connect", "kernel://ping", "--netns", space, "--node", "node9")
    done.fails("there is no node node9", "there are node1, node2")


def test_a_manager_comes_again(mesh):
    """The far manager is killed and started again: the wire carries on, and new ones are made."""
    mesh.apply(client("stays", node="node1")).ok()
    space = f"{mesh.mesh}.stays"
    pid = pid_of(mesh, "nsmgr-" + mesh.mesh + "-node2")
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid))
    assert ping(space, "172.28.2.0")
    late = mesh.namespace("late")
    again = ("connect", "kernel://ping/nsm-1", "--netns", late, "--node", "node1")
    until(lambda: mesh.nsm(*again).code == 0)
    assert ping(late, peer_of(mesh, late))
    assert ping(space, "172.28.2.0")
    mesh.nsm("disconnect", "--netns", late).ok()
    mesh.nsm("delete", "workload", "stays").ok()


def test_a_node_that_is_cut_off_is_passed_over(mesh):
    """The link of the far node is cut: a service with a second endpoint goes on within one Request's time."""
    mesh.apply(at(responder("spare", prefix="172.28.1.0/24"), "node1")).ok()
    far = f"{mesh.mesh}.node2"
    subprocess.run(["ip", "-n", far, "link", "set", "eth0", "down"], check=True)
    try:
        start = time.monotonic()
        for number in range(2):
            space = mesh.namespace(f"cut{number}")
            mesh.nsm("connect", "kernel://ping/nsm-1", "--netns", space, "--node", "node1").ok()
            assert peer_of(mesh, space).startswith("172.28.1.")
            assert ping(space, peer_of(mesh, space))
        assert time.monotonic() - start < 15
    finally:
        subprocess.run(["ip", "-n", far, "link", "set", "eth0", "up"], check=True)
    for number in range(2):
        mesh.nsm("disconnect", "--netns", f"{mesh.mesh}-cut{number}").ok()
    mesh.nsm("delete", "endpoint", "spare").ok()


def test_an_underlay_that_is_down_is_told(mesh):
    """Without a way to another node the error names the address and what is wrong with its link."""
    near = f"{mesh.mesh}.node1"
    subprocess.run(["ip", "-n", near, "link", "set", "eth0", "down"], check=True)
    time.sleep(1.1)  # what the forwarder knows of its link is a second old at most
    try:
        space = mesh.namespace("down")
        done = mesh.nsm("connect", "kernel://ping/nsm-1", "--netns", space, "--node", "node1")
        done.fails("the link of the tunnel address 100.64.0.1 is down on this node")
    finally:
        subprocess.run(["ip", "-n", near, "link", "set", "eth0", "up"], check=True)


def test_conditions_between_nodes(lab):
    """Latency is met once on each way; a kernel without netem says so at once, and nothing is made."""
    spaces = set(Path("/run/netns").iterdir())
    begun = time.monotonic()
    done = lab.nsm("up", "--nodes", "2", "--latency", "20ms")
    if done.code:
        done.fails("--latency and --loss need tc netem, which this kernel lacks", "leave them out")
        assert time.monotonic() - begun < 5
        lab.nsm("up", "--nodes", "2", "--loss", "1%", "--foreground").fails("need tc netem")
        assert lab.spaces() == []
        assert not lab.run.exists()
        assert not lab.state.exists()
        assert not [path for path in set(Path("/run/netns").iterdir()) - spaces if lab.mesh in path.name]
        return
    out = subprocess.run(
        ["ip", "netns", "exec", f"{lab.mesh}.node1", "ping", "-c3", "-q", "100.64.0.2"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    fastest = float(re.search(r"= ([\d.]+)/", out)[1])
    assert 40 <= fastest < 60


def test_conditions_are_for_several_nodes(lab):
    """What cannot be done is refused, not ignored; so are numbers without a meaning."""
    lab.nsm("up", "--latency", "2ms").fails("add --nodes 2", code=2)
    lab.nsm("up", "--nodes", "2", "--latency", "2").fails("without a unit", code=2)
    lab.nsm("up", "--nodes", "2", "--loss", "101%").fails("write for example 0.1%", code=2)
    lab.nsm("up", "--nodes", "0").fails("--nodes", code=2)


def test_a_node_is_wanted_in_a_mesh_of_one(lab):
    """The error says how to have several."""
    lab.up()
    lab.apply(client("a", node="node2")).fails("there is no node node2", "bring it up with --nodes 2")


def test_a_killed_mesh_of_nodes_leaves_nothing(lab):
    """Namespaces of nodes, their processes, and interfaces in namespaces of others: all of it goes."""
    lab.up("--nodes", "2")
    lab.apply(at(responder(), "node2")).ok()
    resident = lab.resident()
    for number, node in enumerate(("node1", "node2")):
        url = f"kernel://ping/nsm-{number}"
        lab.nsm("connect", url, "--pid", str(resident.pid), "--node", node, "--name", f"c{number}").ok()
    assert {"node1", "node2", "underlay"} < set(lab.spaces())
    lab.kill_daemon()
    lab.nsm("down").ok()
    assert lab.spaces() == []
    lines = Path(f"/proc/{resident.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]


def test_what_was_applied_comes_again_on_its_node(lab):
    """After a restart with as many nodes everything is where it was."""
    lab.up("--nodes", "2")
    lab.apply(documents(at(responder(), "node2"), client("app", node="node1"))).ok()
    lab.nsm("down").ok()
    lab.up("--nodes", "2")
    until(lambda: lab.get("connections"))
    assert lab.get("connections")[0]["nodes"] == ["node1", "node2"]
    assert ping(f"{lab.mesh}.app", "172.30.0.0")


def test_a_deleted_endpoint_gives_its_wires_to_another_node(lab):
    """The near endpoint goes, with its namespace: the client is served by the one on the other node."""
    lab.up("--nodes", "2")
    here, there = at(responder("here"), "node1"), at(responder("there", prefix="172.29.0.0/24"), "node2")
    lab.apply(documents(here, client("app", node="node1"))).ok()
    lab.apply(there).ok()
    lab.nsm("delete", "endpoint", "here").ok()
    until(
        lambda: (
            [row["nodes"] for row in lab.get("connections") if row["state"] == "up"] == [["node1", "node2"]]
        )
    )
    until(lambda: ping(f"{lab.mesh}.app", peer_of(lab, "app")))
