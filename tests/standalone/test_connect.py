"""Connect and disconnect: into namespaces and processes of the user's, and all that can go wrong."""

import subprocess
import time
from pathlib import Path

import pytest
from mesh_lab import ENDPOINT, FUNCTIONS, Lab, documents, end, finish, ping, ping_pid, responder, until

from nsmesh.datapath import netns

pytestmark = pytest.mark.root

PICKY = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: picky}
spec:
  payload: IP
  matches:
    - source_selector: {app: vip}
      routes: [{destination_selector: {app: gold}}]
    - routes: [{destination_selector: {app: silver}}]
"""


@pytest.fixture(scope="module")
def mesh():
    with Lab() as lab:
        lab.up()
        lab.write("functions.py", FUNCTIONS)
        endpoints = documents(
            responder(),
            responder("tiny", "tiny", "172.31.0.0/30"),
            responder("bronze", "picky", "172.29.0.0/24"),
            ENDPOINT.format(name="strict", cls="Strict", prefix="172.28.0.0/24"),
            ENDPOINT.format(name="slow", cls="Slow", prefix="172.27.0.0/24"),
            PICKY,
        )
        path = lab.write("endpoints.yaml", endpoints)
        lab.nsm("apply", "-f", str(path)).ok()
        yield lab


@pytest.fixture
def space(mesh):
    """Make a namespace of the user's; when it ends, nothing of the mesh may be left in it."""
    name = mesh.namespace(f"s{time.monotonic_ns() % 10**9}")
    before = sorted(row["id"] for row in mesh.get("connections"))
    yield name
    for row in mesh.get("clients"):
        if row["netns"].endswith(f"/{name}"):
            mesh.nsm("disconnect", "--client", row["name"]).ok()
    if Path("/run/netns", name).exists():
        until(lambda: mesh.links(name) == [], 2, lambda: f"left in the namespace: {mesh.links(name)}")
    until(lambda: sorted(row["id"] for row in mesh.get("connections")) == before, 2)


def nothing_happened(mesh, space):
    """After a refusal there is no interface, client or connection, and the responder has nothing either."""
    assert mesh.links(space) == []
    assert [row for row in mesh.get("clients") if row["netns"].endswith(f"/{space}")] == []


def test_by_name_path_and_pid(mesh, space):
    """All three ways to name a namespace lead there; each wire passes packets and goes away again."""
    done = mesh.nsm("connect", "kernel://ping/nsm-1", "--netns", space).ok()
    assert "wire nsm-1 to responder up in " in done.out
    resident = mesh.resident()
    done = mesh.nsm("connect", "kernel://ping/nsm-2", "--pid", str(resident.pid), "-o", "json").ok()
    assert done.json()["id"] == f"pid-{resident.pid}-0"
    assert done.json()["interface"] == "nsm-2"
    path = f"/proc/{mesh.resident().pid}/ns/net"
    mesh.nsm("connect", "kernel://ping/nsm-3", "--netns", path).ok()
    assert mesh.links(space) == ["nsm-1"]
    assert ping(space, "172.30.0.0")
    address = mesh.row("connections", f"pid-{resident.pid}-0")["peer_address"][0].partition("/")[0]
    assert ping_pid(resident.pid, address)
    pid = path.split("/")[2]
    assert mesh.row("clients", f"pid-{pid}")["state"] == "up"
    assert "disconnected" in mesh.nsm("disconnect", "--pid", pid).ok().out
    assert "closed" in mesh.nsm("disconnect", f"pid-{resident.pid}-0").ok().out
    assert "disconnected" in mesh.nsm("disconnect", "--netns", space).ok().out
    assert mesh.get("clients") == []
    until(lambda: mesh.links(space) == [], 1)


def test_a_wire_says_what_it_took(mesh, space):
    """The command says how long the Request took; how long is fair is measured in bench."""
    done = finish(mesh.process("connect", "kernel://ping/nsm-1", "--netns", space)).ok()
    assert int(done.out.rpartition(" up in ")[2].split()[0]) >= 0


def test_places_that_are_not_there(mesh):
    """An unknown namespace, pid or file is named, with what there is instead."""
    mesh.nsm("connect", "kernel://ping", "--netns", "qqqq").fails(
        "there is no network namespace qqqq", "there are: "
    )
    near = f"{mesh.mesh}.respnder"
    mesh.nsm("connect", "kernel://ping", "--netns", near).fails(near, f"did you mean {mesh.mesh}.responder?")
    mesh.nsm("connect", "kernel://ping", "--pid", "4194303").fails(
        "there is no process 4194303", "check the pid"
    )
    file = mesh.write("plain", "")
    mesh.nsm("connect", "kernel://ping", "--netns", str(file)).fails(
        f"{file} is no network namespace", "ip netns"
    )
    mesh.nsm("connect", "kernel://ping").fails("--netns NAME, or --pid PID", code=2)
    mesh.nsm("connect", "kernel://ping", "--netns", "a", "--pid", "1").fails("one of them", code=2)
    mesh.nsm("connect", "kernel://ping", "--pid", "0").fails("0 is not in the range", code=2)
    assert mesh.get("clients") == []


@pytest.mark.parametrize(
    ("url", "pieces"),
    [
        ("kernel://ping/an-interface-too-long", ["'an-interface-too-long' has 21 characters", "15"]),
        ("kernel://ping/a%2Fb", ["contains '/'"]),
        ("kernel://ping/a%20b", ["contains ' '"]),
        ("kernel://ping/a:b", ["contains ':'"]),
        ("kernal://ping", ["kernal", "kernel"]),
        ("http://ping", ["http"]),
        ("kernel:///nsm-1", ["service"]),
        ("", ["''"]),
    ],
)
def test_urls_that_cannot_be_used(mesh, space, url, pieces):
    """A mistake in the URL is shown with the place where it is."""
    mesh.nsm("connect", url, "--netns", space).fails(*pieces)
    nothing_happened(mesh, space)


def test_interface_names_that_are_taken(mesh, space):
    """By a foreign interface, by another connection of the client, and by one of another client."""
    veth = ["type", "veth", "peer", "name", "eth9"]  # not every kernel has dummies
    subprocess.run(["ip", "-n", space, "link", "add", "eth0", *veth], check=True)
    mesh.nsm("connect", "kernel://ping/eth0", "--netns", space).fails("eth0", space, "->")
    assert mesh.links(space) == ["eth0", "eth9"]
    mesh.nsm("connect", "kernel://ping/nsm-1", "--netns", space, "--name", "first").ok()
    mesh.nsm("connect", "kernel://ping/nsm-1", "--netns", space, "--name", "first").fails(
        "client first has an interface nsm-1 already (connection first-0)", "nsm disconnect first-0"
    )
    mesh.nsm("connect", "kernel://ping/nsm-1", "--netns", space, "--name", "second").fails(
        "interface nsm-1", "is held by connection", "of first", "another interface name"
    )
    assert [row["name"] for row in mesh.get("clients")] == ["first"]
    assert ping(space, mesh.row("connections", "first-0")["peer_address"][0].partition("/")[0])
    mesh.nsm("disconnect", "first-0").ok()
    subprocess.run(["ip", "-n", space, "link", "del", "eth0"], check=True)


def test_names_of_clients(mesh, space):
    """A name that is no name, of a part of the mesh, or of a client elsewhere, is refused."""
    place = ["--netns", space]
    mesh.nsm("connect", "kernel://ping", *place, "--name", "A b").fails(
        "the name 'A b' contains", "--name a-b"
    )
    for name in (f"nsmgr-{mesh.mesh}", f"forwarder-{mesh.mesh}", "responder"):
        mesh.nsm("connect", "kernel://ping", *place, "--name", name).fails(
            f"{name} is the name of a part of the mesh", "--name"
        )
    other = mesh.namespace("other")
    mesh.nsm("connect", "kernel://ping", *place, "--name", "one").ok()
    mesh.nsm("connect", "kernel://ping", "--netns", other, "--name", "one").fails(
        f"a client one exists in /run/netns/{space}", "--name"
    )
    assert mesh.links(other) == []


def test_an_unknown_service(mesh, space):
    """The nearest name is proposed."""
    mesh.nsm("connect", "kernel://pong/nsm-1", "--netns", space).fails("network service pong", "ping")
    nothing_happened(mesh, space)


def test_no_endpoint_matches(mesh, space):
    """The error lists the candidates, and why each was dropped."""
    mesh.nsm("connect", "kernel://picky/nsm-1?app=vip", "--netns", space).fails(
        "picky", "bronze", "app", "gold", "->"
    )
    nothing_happened(mesh, space)


def test_an_endpoint_refuses(mesh, space):
    """The endpoint's own sentence and remedy reach the user, and what it had given out is taken back."""
    for _ in range(2):
        mesh.nsm("connect", "kernel://strict/nsm-1", "--netns", space).fails(
            "the bar is closed for guests without a tie", "put on a tie"
        )
    nothing_happened(mesh, space)


def test_a_pool_that_is_exhausted(mesh, space):
    """The error names the prefix; a disconnect makes room again."""
    connected = []
    for number in range(5):
        done = mesh.nsm("connect", f"kernel://tiny/nsm-{number}", "--netns", space, "--name", "t")
        if done.code:
            break
        connected.append(number)
    done.fails("172.31.0.0/30")
    assert 1 <= len(connected) <= 2
    assert mesh.links(space) == [f"nsm-{number}" for number in connected]
    mesh.nsm("disconnect", "t-0").ok()
    mesh.nsm("connect", "kernel://tiny/again", "--netns", space, "--name", "t").ok()


def test_a_process_that_dies_takes_its_wires_along(mesh):
    """When the process of --pid ends, client and wire go by themselves, and an event says so."""
    resident = mesh.resident()
    mesh.nsm("connect", "kernel://ping/nsm-1", "--pid", str(resident.pid)).ok()
    end(resident)
    until(lambda: mesh.get("clients") == [] and mesh.get("connections") == [], 3)
    assert any(f"process {resident.pid} ended" in row["text"] for row in mesh.get("events"))


def test_a_namespace_that_is_deleted_takes_its_wires_along(mesh, space):
    """The same for a namespace, which nobody tells us of."""
    mesh.nsm("connect", "kernel://ping/nsm-1", "--netns", space).ok()
    netns.delete(space)
    until(lambda: mesh.get("clients") == [] and mesh.get("connections") == [], 4)
    assert any(f"/run/netns/{space} is gone" in row["text"] for row in mesh.get("events"))


def test_a_namespace_that_goes_in_mid_request(mesh, space):
    """The request fails with a sentence that names the namespace; the endpoint gets everything back."""
    waiting = mesh.process("connect", "kernel://slow/nsm-1", "--netns", space)
    until(lambda: [row for row in mesh.get("clients") if row["state"] == "connecting"])
    netns.delete(space)
    finish(waiting).fails(space)
    until(lambda: mesh.get("clients") == [] and mesh.get("connections") == [], 3)


def test_a_process_that_dies_in_mid_request(mesh):
    """The same for a process: the error names it, and the endpoint gets everything back."""
    resident = mesh.resident()
    waiting = mesh.process("connect", "kernel://slow/nsm-1", "--pid", str(resident.pid))
    until(lambda: [row for row in mesh.get("clients") if row["state"] == "connecting"])
    end(resident)
    finish(waiting).fails(f"process {resident.pid} ended", "-> ")
    until(lambda: mesh.get("clients") == [] and mesh.get("connections") == [], 3)


def test_disconnect_in_mid_request(mesh, space):
    """A wire that is being made can be taken away; whoever asked for it is told."""
    waiting = mesh.process("connect", "kernel://slow/nsm-1", "--netns", space, "--name", "hasty")
    until(lambda: [row for row in mesh.get("clients") if row["state"] == "connecting"])
    mesh.nsm("disconnect", "hasty-0").ok()
    finish(waiting).fails("hasty-0 was closed while it was being made")
    nothing_happened(mesh, space)


def test_interrupt_in_mid_request(mesh, space):
    """Ctrl-C takes back what was asked for."""
    waiting = mesh.process("connect", "kernel://slow/nsm-1", "--netns", space)
    until(lambda: [row for row in mesh.get("clients") if row["state"] == "connecting"])
    waiting.send_signal(2)
    finish(waiting).fails("interrupted", code=130)
    until(lambda: mesh.get("clients") == [] and mesh.get("connections") == [], 3)
    nothing_happened(mesh, space)


def test_a_command_that_is_killed_in_mid_request(mesh, space):
    """A caller that cannot take anything back any more has it taken back by the mesh."""
    waiting = mesh.process("connect", "kernel://slow/nsm-1", "--netns", space)
    until(lambda: [row for row in mesh.get("clients") if row["state"] == "connecting"])
    end(waiting)
    until(lambda: mesh.get("clients") == [] and mesh.get("connections") == [], 3)
    nothing_happened(mesh, space)


def test_disconnect_of_what_is_not_there(mesh, space):
    """Each way to name a wire has its own error, with how to list what there is."""
    mesh.nsm("disconnect", "nobody-0").fails("there is no connection nobody-0", "nsm get connections")
    mesh.nsm("disconnect", "--client", "nobody").fails("there is no client nobody", "nsm get clients")
    mesh.nsm("disconnect", "--netns", space).fails("no client has a wire into", space)
    mesh.nsm("disconnect", "--netns", "no-such").fails("there is no network namespace no-such")
    mesh.nsm("disconnect").fails("name one", code=2)
    mesh.nsm("disconnect", "a-0", "--client", "a").fails("name one", code=2)
