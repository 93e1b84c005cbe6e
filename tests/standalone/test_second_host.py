"""Two hosts, one mesh: joining, wires between them, ends and returns of either, leaving."""

import pytest
from host_lab import Host, wired
from mesh_lab import NSM, finish, responder, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

SERVICE = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: ping}
spec: {payload: IP}
"""
CAPTURE = """
import socket, struct, sys, time
packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # in and out
packets.bind(("eth0", 0))
packets.settimeout(0.2)
print("ready", flush=True)
seen, end = set(), time.monotonic() + 1.5
while time.monotonic() < end:
    try:
        data, (_, protocol, *_) = packets.recvfrom(2048)
    except TimeoutError:
        continue
    if protocol != 0x0800:
        continue
    head = (data[0] & 15) * 4
    if data[9] == 17:
        port = struct.unpack_from("!H", data, head + 2)[0]
        seen.add((socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20]), port))
print(sorted(seen))
"""


def client(name, node=""):
    return f"""
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: {name}
  annotations: {{networkservicemesh.io: kernel://ping/nsm-1}}
spec: {{node: "{node}"}}
"""


@pytest.fixture(scope="module")
def hosts():
    """Give two hosts with a cable between them, the first one up and letting others join."""
    with Host("host1") as one, Host("host2") as two:
        wired(one, two)
        one.nsm("up", "--listen", "192.0.2.1").ok()
        one.apply(SERVICE).ok()
        yield one, two


@pytest.fixture
def pair(hosts):
    """Give both hosts with the second one a node, an endpoint on it, and a wire to that from the first."""
    one, two = hosts
    if "host2" not in names(one, "nodes"):
        two.nsm("join", "192.0.2.1", "--token", one.token()).ok()
    elif two.nsm("status").code:  # the test before has failed
        two.nsm("up").ok()
    until(lambda: names(one, "nodes").get("host2") == "up", 20, why=one.events)
    two.apply(responder()).ok()
    one.apply(client("app")).ok()
    until(lambda: one.reaches("app"), 20, why=one.events)
    return one, two


def names(host, kind):
    return {row["name"]: row["state"] for row in host.get(kind)}


def test_a_wire_crosses_from_host_to_host(pair):
    """Both hosts list both nodes; packets go through VXLAN between the addresses of the hosts."""
    one, two = pair
    assert until(lambda: len(two.get("nodes")) == 2)
    for host in pair:
        rows = {row["name"]: row for row in host.get("nodes")}
        assert {name: row["address"] for name, row in rows.items()} == {
            "host1": "192.0.2.1",
            "host2": "192.0.2.2",
        }
        assert [name for name, row in rows.items() if row["first"]] == ["host1"]
        assert [name for name, row in rows.items() if row["here"]] == [host.name]
        assert {row["node"]: row["url"] for row in host.get("managers")} == {
            "host1": "tcp://192.0.2.1:5001",
            "host2": "tcp://192.0.2.2:5001",
        }
    [wire] = one.get("connections")
    assert wire["nodes"] == ["host1", "host2"]
    assert wire["mtu"] == 1450
    looking = one.start("python3", "-c", CAPTURE)
    assert looking.stdout.readline() == "ready\n"
    assert one.reaches("app")
    seen, _ = looking.communicate(timeout=10)
    assert "('192.0.2.1', '192.0.2.2', 4789)" in seen
    assert "('192.0.2.2', '192.0.2.1', 4789)" in seen
    assert one.nsm("nodes").ok().out.count("up ") == 2


def test_a_client_on_the_host_that_joined(pair):
    """It finds endpoints of the first host as the first host's clients find those of the second."""
    one, two = pair
    one.apply(responder("far", prefix="172.31.0.0/24")).ok()
    one.nsm("delete", "workload", "app").ok()
    two.nsm("delete", "endpoint", "responder").ok()
    two.apply(client("other")).ok()
    assert two.reaches("other")
    assert two.get("connections")[0]["nodes"] == ["host2", "host1"]
    two.nsm("delete", "workload", "other").ok()
    one.nsm("delete", "endpoint", "far").ok()


def test_what_belongs_on_another_host_is_told(pair):
    """Services, tokens and membership are the first host's; workloads live where they are applied."""
    one, two = pair
    two.apply(SERVICE).ok()  # it is there, and the same
    two.apply(SERVICE.replace("IP", "ETHERNET")).fails(
        "network services are the first host's, host1", "apply or delete"
    )
    two.nsm("delete", "service", "ping").fails("network services are the first host's, host1")
    two.apply(responder("alone", service="nothing")).fails(
        "there is no network service nothing", "apply it on", "host1"
    )
    two.apply(client("there", "host1")).fails(
        "host1 is another host, and this one is host2", "apply it on host1"
    )
    one.apply(client("there", "host2")).fails(
        "host2 is another host, and this one is host1", "apply it on host2"
    )
    one.apply(client("there", "host9")).fails("there is no node host9")
    two.apply(client("there", "host2")).ok()
    two.nsm("delete", "workload", "there").ok()
    two.nsm("token", "create").fails("this host joined the mesh default", "call it on host1")
    two.nsm("node", "remove", "host1").fails("this host joined the mesh default", "call it on host1")
    one.nsm("node", "remove", "host9").fails("there is no node host9 that joined", "there are: host2")
    one.nsm("leave").fails("this host has joined no mesh default", "down --purge")


def test_the_daemon_of_the_second_host_dies_and_comes_back(pair):
    """It needs no token again; what it had is there again, and the wire from the first host heals."""
    one, two = pair
    two.kill_daemon()
    two.nsm("up").ok()
    assert names(two, "endpoints") == {"responder": "ready"}
    until(lambda: one.reaches("app"), 30, why=one.events)
    assert names(one, "nodes") == {"host1": "up", "host2": "up"}


def test_the_second_host_goes_down_and_comes_up(pair):
    """``nsm down`` keeps it a node: its endpoints are withdrawn, and it is silent meanwhile."""
    one, two = pair
    two.nsm("down").ok()
    assert "responder" not in names(one, "endpoints")
    until(lambda: names(one, "nodes")["host2"] == "silent", 20)
    two.nsm("up").ok()
    until(lambda: one.reaches("app"), 30, why=one.events)
    assert names(one, "nodes")["host2"] == "up"


def test_the_first_host_is_away(pair):
    """Wires on the second host stay meanwhile; all is as before when the first is back, by ``nsm up``."""
    one, two = pair
    two.apply(client("local")).ok()
    one.kill_daemon()
    until(lambda: "the first host host1 does not answer" in two.events(), 20)
    assert two.reaches("local")
    assert two.get("connections")[0]["state"] == "up"
    one.nsm("up").ok()
    until(lambda: "the first host host1 answers again" in two.events(), 20)
    until(lambda: one.reaches("app"), 30, why=one.events)
    assert two.reaches("local")
    two.nsm("delete", "workload", "local").ok()


def test_both_are_down_and_the_second_comes_first(pair):
    """It waits for the first host before it puts up what it had."""
    one, two = pair
    one.nsm("delete", "workload", "app").ok()
    one.nsm("down").ok()
    two.nsm("down").ok()
    up = two.start(*NSM, "up")
    until(lambda: two.nsm("status").code == 0)
    assert two.nsm("status", "-o", "json").ok().json()["state"] == "restoring"
    one.nsm("up").ok()
    finish(up).ok()
    assert names(two, "endpoints") == {"responder": "ready"}


def forwarder(host):
    """Return what a host tells of its own forwarder: the first mechanism, and the label zone."""
    [row] = [row for row in host.get("forwarders") if row["node"] == host.name]
    return row["mechanisms"][0], row["labels"].get("zone")


def test_options_for_forwarders_stay_with_a_host(pair):
    """``nsm up`` has them again, after a kill too, and changes those that are given; so on the first host."""
    one, two = pair
    two.nsm("leave").ok()
    options = ("--mechanisms", "VXLAN", "--tunnels-apart", "--labels", "zone=b")
    two.nsm("join", "192.0.2.1", "--token", one.token(), *options).ok()
    two.apply(responder()).ok()
    for again in (two.kill_daemon, lambda: two.nsm("down").ok()):
        again()
        two.nsm("up").ok()
        assert forwarder(two) == ("VXLAN", "b")
        until(lambda: one.reaches("app"), 30, why=one.events)
        assert "vxlan" not in two.run("ip", "-n", "default.responder", "-d", "link").ok().out
        assert "vxlan" in two.run("ip", "-d", "link").ok().out
    two.nsm("up", "--tunnels-apart", "--labels", "zone=b").ok()
    two.nsm("up", "--labels", "zone=c").fails("is up already, with --labels=zone=b", "down")
    two.nsm("down").ok()
    two.nsm("up", "--labels", "zone=c", "--no-tunnels-apart").ok()
    assert forwarder(two) == ("VXLAN", "c")
    two.nsm("up", "--device-selector", "/etc/hostname").fails("is up already, without --device-selector")
    until(lambda: one.reaches("app"), 30, why=one.events)
    assert "vxlan" in two.run("ip", "-n", "default.responder", "-d", "link").ok().out
    for options in (("--labels", "zone=a"), ()):
        one.nsm("down").ok()
        one.nsm("up", *options).ok()
        assert forwarder(one)[1] == "a"


def test_a_node_that_is_removed(pair):
    """Its daemon goes down, it does not come up again, and can join anew, with a new token."""
    one, two = pair
    one.nsm("node", "remove", "host2").ok()
    assert set(names(one, "nodes")) == {"host1"}
    until(lambda: not two.run("ls", "/run/nsmesh").out, 20)
    two.nsm("up").fails("this host was taken out of the mesh default", "nsm join")
    two.nsm("join", "192.0.2.1", "--token", one.token()).ok()
    assert names(two, "endpoints") == {"responder": "ready"}
    until(lambda: one.reaches("app"), 30, why=one.events)


def test_a_node_that_is_lost_and_removed(pair):
    """What it had registered goes at once, and its endpoint's name is free: a wire heals to who takes it."""
    one, two = pair
    two.kill_daemon()
    assert "responder" in names(one, "endpoints")
    one.nsm("node", "remove", "host2").ok()
    until(lambda: {row["node"] for row in one.get("forwarders")} == {"host1"}, 10)
    assert "responder" not in names(one, "endpoints")
    one.apply(responder(prefix="172.29.0.0/24")).ok()
    until(lambda: one.reaches("app"), 30, why=one.events)
    assert one.get("connections")[0]["nodes"] == ["host1"]
    one.nsm("delete", "endpoint", "responder").ok()
    two.nsm("down", "--purge").ok()


def test_a_host_leaves(pair):
    """Nothing of it is left, on either side; the name is free again."""
    one, two = pair
    said = two.nsm("leave").ok().out
    assert "host2 has left the mesh default" in said
    assert set(names(one, "nodes")) == {"host1"}
    assert "responder" not in names(one, "endpoints")
    assert {row["node"] for row in one.get("forwarders")} == {"host1"}
    until(lambda: one.get("clients")[0]["state"] == "healing" or not one.get("connections"), 20)
    two.nsm("status").fails("is not up", code=3)
    assert not two.run("ls", "/var/lib/nsmesh/default").out
    assert not two.run("ls", "/run/nsmesh").out
    two.nsm("join", "192.0.2.1", "--token", one.token()).ok()
    two.nsm("down", "--purge").ok()
    assert set(names(one, "nodes")) == {"host1"}


def test_a_host_leaves_while_the_first_one_is_away(hosts):
    """It is free at once, and says what is left to do on the first host."""
    one, two = hosts
    one.nsm("delete", "workload", "app").ok()
    two.nsm("join", "192.0.2.1", "--token", one.token()).ok()
    one.nsm("down").ok()
    done = two.nsm("leave").ok()
    assert "host1 could not be told" in done.err
    assert "-> on it: nsm --mesh default node remove host2" in done.err
    assert not two.run("ls", "/var/lib/nsmesh/default").out
    one.nsm("up").ok()
    one.nsm("node", "remove", "host2").ok()
