"""Joining that fails: each reason is one sentence with a remedy, and nothing is left of the attempt."""

import shlex

import pytest
from host_lab import Host, wired
from mesh_lab import NSM, until

from nsmesh.security.join_token import JoinToken

pytestmark = [pytest.mark.root, pytest.mark.timeout(90)]

FIRST = "192.0.2.1"
WEB = """
import http.server, socketserver, sys
socketserver.TCPServer((sys.argv[1], 8080), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
"""A web server that does not ask for its own name, which takes long where no name server answers."""


@pytest.fixture(scope="module")
def hosts():
    """Give two hosts with a cable between them, the first one up and letting others join."""
    with Host("host1") as one, Host("host2") as two:
        wired(one, two)
        one.nsm("up", "--listen", FIRST).ok()
        yield one, two


def test_tokens_that_do_not_let_in(hosts):
    """Garbage, a token of another mesh, one that was never given, and one that has expired."""
    one, two = hosts
    short = one.token("--ttl", "1s")
    for garbage in ("x", "nsm1.a.b.c", short[:-1], short + "AAAA", short.replace("nsm1", "nsm2")):
        two.nsm("join", FIRST, "--token", garbage).fails("this is no join token", "nsm token create")
    two.nsm("join", FIRST, "--token", str(JoinToken.new(b"x" * 32))).fails(
        "192.0.2.1:5000 is of another mesh than the token", "join at the address that nsm token create said"
    )
    pin = JoinToken.parse(short).pin
    two.nsm("join", FIRST, "--token", str(JoinToken.new(pin))).fails("this mesh has given no such join token")
    real = JoinToken.parse(one.token())
    forged = JoinToken(real.id, b"y" * 16, real.pin)
    two.nsm("join", FIRST, "--token", str(forged)).fails(
        f"the join token {real.id} is not the one that was given"
    )
    until(lambda: "expired" in two.nsm("join", FIRST, "--token", short).err)
    two.nsm("join", FIRST, "--token", "-", given=short + "\n").fails(
        "the join token", "has expired", "ago", "make a new one on the first host: nsm token create"
    )
    one.nsm("token", "create", "--ttl", "48h").fails("cannot be good for 172800 s", "give --ttl 1s to 24h")
    assert not two.run("ls", "/var/lib/nsmesh/default/membership.json").out


def test_addresses_at_which_nobody_lets_in(hosts):
    """A host that is not there, no server, a server of something else, no address, no way."""
    one, two = hosts
    token = one.token()
    two.nsm("join", "192.0.2.9", "--token", token).fails("192.0.2.9:5000", "check")
    two.nsm("join", f"{FIRST}:6000", "--token", token).fails(
        "no mesh can be joined at 192.0.2.1:6000", "nobody listens", "check address and port"
    )
    two.nsm("join", f"{FIRST}:5001", "--token", token).fails(
        "192.0.2.1:5001 is no port at which hosts join: it wants a certificate",
        "nsm token create says",
    )
    for wrong in ("example", "192.0.2.1:x", "192.0.2.1:80", "0.0.0.0", "192.0.2.1:70000"):
        two.nsm("join", wrong, "--token", token).fails("error: ")
    two.nsm("join", "203.0.113.1", "--token", token).fails("this host has no way to 203.0.113.1", "ip route")
    one.run("bash", "-c", f"timeout 30 python3 -c {shlex.quote(WEB)} {FIRST} >/dev/null 2>&1 &").ok()
    until(lambda: one.run("bash", "-c", f"exec 3<>/dev/tcp/{FIRST}/8080").code == 0)
    two.nsm("join", f"{FIRST}:8080", "--token", token).fails("192.0.2.1:8080", "check address and port")


def test_names_that_are_taken(hosts):
    """The first host's own, another node's, and what can be no name."""
    one, two = hosts
    token = one.token()
    two.nsm("join", FIRST, "--token", token, "--name", "host1").fails(
        "host1 is the name of the first host's own node"
    )
    two.nsm("join", FIRST, "--token", token, "--name", "Host 2").fails(
        "the name 'Host 2' contains", "--name host-2"
    )
    two.nsm("--mesh", "other", "join", FIRST, "--token", token).fails(
        "the mesh at 192.0.2.1:5000 is called default, and other was to be joined", "nsm --mesh default join"
    )


def test_joining_again(hosts):
    """Twice at the same mesh, with a token that is used up, and under the name of a node that is there."""
    one, two = hosts
    token = one.token()
    two.nsm("join", FIRST, "--token", token).ok()
    again = "this host is the node host2 of the mesh default already"
    two.nsm("join", FIRST, "--token", token).fails(again, "nsm up", "leave")
    two.nsm("up").ok()
    two.nsm("down").ok()
    two.nsm("join", FIRST, "--token", token).fails(again)
    two.nsm("up", "--listen", "192.0.2.2").fails("this host joined the mesh of host1", "without --listen")
    two.nsm("up", "--nodes", "2").fails("with other hosts in the mesh, this host is one node")
    one.nsm("up", "--separate").fails("its roles are one process", "--mesh NAME")
    one.nsm("up", "--listen", "192.0.2.1:6000").fails(
        "is up already", "cannot join it at 192.0.2.1:6000", "down"
    )
    one.nsm("up", "--listen", FIRST).ok()
    with Host("host3") as three:
        wired(one, three, "198.51.100", "eth1")
        three.nsm("join", FIRST, "--token", token, "--address", "198.51.100.2").fails(
            "192.0.2.1", "unreachable"
        )
        three.run("ip", "route", "add", "192.0.2.0/24", "via", "198.51.100.1").ok()
        three.nsm("join", FIRST, "--token", token).fails(
            "has been used already, by host2", "nsm token create"
        )
        three.nsm("join", FIRST, "--token", one.token(), "--name", "host2").fails(
            "there is a node host2 in this mesh already (192.0.2.2)", "--name", "nsm node remove host2"
        )
    two.nsm("leave").ok()
    two.nsm("join", FIRST, "--token", token).fails("has been used already, by host2")


def test_a_mesh_of_its_own(hosts):
    """A host with a mesh of that name, up or down, does not join before it is forgotten; others go on."""
    one, two = hosts
    token = one.token()
    two.nsm("up").ok()
    two.nsm("join", FIRST, "--token", token).fails(
        "there is a mesh default on this host already, and it is up", "--purge"
    )
    two.nsm("token", "create").fails(
        "no host can join the mesh default: it does not listen for any", "up --listen IP"
    )
    two.nsm("down").ok()
    two.nsm("join", FIRST, "--token", token).fails(
        "there is a mesh default of this host's own already", "--purge"
    )
    two.nsm("down", "--purge").ok()


def test_listening_that_fails(hosts):
    """An address of another host, a port that is in use, one that is none, names without an address."""
    _, two = hosts
    two.nsm("up", "--listen", "192.0.2.77").fails(
        "cannot listen on tcp://192.0.2.77:5000: Cannot assign requested address"
    )
    two.nsm("up", "--listen", "0.0.0.0").fails("0.0.0.0 is no address of one host")
    two.nsm("up", "--name", "x").fails("add --listen IP", code=2)
    two.nsm("up", "--listen", "192.0.2.2", "--separate").fails("this host is one node")
    two.nsm("down", "--purge").ok()


def test_who_is_not_root_does_not_join(hosts):
    """It is said before anything else."""
    _, two = hosts
    words = ["setpriv", "--reuid", "65534", "--clear-groups"]
    two.run(*words, *NSM, "join", FIRST, "--token", "x").fails("root")
    two.run(*words, *NSM, "leave").fails("root")
