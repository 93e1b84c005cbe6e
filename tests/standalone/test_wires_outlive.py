"""A wire outlives everything that is not the wire: not a packet is lost, and it stays the very same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest
from mesh_lab import BOX, Lab, documents, is_gone, ping, responder, until

from nsmesh.datapath.abilities import lacks

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


IP = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: ping}
spec: {payload: IP}
"""


class Stream:
    """A hundred packets a second through a wire, each with its number; what was lost is known at the end."""

    def __init__(self, namespace, address):
        argv = ["ip", "netns", "exec", namespace, "ping", "-n", "-q", "-i", "0.01", address]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def end(self):
        """Return how many were sent and how many of them were lost."""
        time.sleep(0.2)
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=10)
        sent, _, rest = out.partition(" packets transmitted, ")
        sent, came = int(sent.split()[-1]), int(rest.split()[0])
        return sent, sent - came


def interfaces(namespace):
    """Return what an interface is known by: name, index, MAC, addresses."""
    done = subprocess.run(["ip", "-n", namespace, "-j", "address"], capture_output=True, check=True)
    return sorted(
        (
            link["ifname"].partition("@")[0],
            link["ifindex"],
            link["address"],
            sorted(one["local"] for one in link["addr_info"] if one["scope"] == "global"),
        )
        for link in json.loads(done.stdout)
        if link["ifname"] != "lo"
    )


class Life:
    """What must go on: a stream from an applied workload and from one that was connected by hand."""

    def __init__(self, lab):
        self.lab = lab
        self.spaces = [f"{lab.mesh}.box", f"{lab.mesh}.responder", f"{lab.mesh}-hand"]
        self.before = [interfaces(space) for space in self.spaces]
        self.rows = self.wires()
        self.pids = self.children()
        self.streams = [Stream(space, self.target(space)) for space in (self.spaces[0], self.spaces[2])]
        for stream in self.streams:
            lab.stack.callback(stream.process.kill)  # of a test that fails
        time.sleep(0.3)

    def target(self, space):
        done = subprocess.run(["ip", "-n", space, "-j", "route"], capture_output=True, check=True)
        return next(one["dst"] for one in json.loads(done.stdout) if one["dst"].startswith("172.30."))

    def wires(self):
        rows = self.lab.get("connections")
        return sorted((row["id"], row["address"], row["endpoint"]) for row in rows)

    def children(self):
        return {
            "responder": self.lab.row("endpoints", "responder")["pid"],
            "box": self.lab.row("clients", "box")["pid"],
        }

    def goes_on(self, *, but=()):
        """Assert that all is as it was, and that new Requests are served."""
        until(
            lambda: [row["state"] for row in self.lab.get("clients")] == ["up", "up"],
            20,
            lambda: f"{self.lab.get('clients')}\n{self.lab.nsm('get', 'events').out}",
        )
        until(lambda: self.wires() == self.rows, 20, lambda: f"{self.wires()} instead of {self.rows}")
        ended = [stream.end() for stream in self.streams]
        assert [lost for _, lost in ended] == [0, 0], ended
        assert [interfaces(space) for space in self.spaces] == self.before
        after = self.children()
        assert all(after[name] == pid for name, pid in self.pids.items() if name not in but), after
        fresh = self.lab.namespace(f"new{time.monotonic_ns() % 10**9}")
        ask = ("connect", "kernel://ping/nsm-1", "--netns", fresh)
        until(lambda: not self.lab.nsm(*ask).code, 15, lambda: f"{self.lab.nsm(*ask)}")
        assert ping(fresh, self.target(fresh))
        mine = {address for *_, given in interfaces(fresh) for address in given}
        others = {address for space in self.before for *_, given in space for address in given}
        assert not mine & others, "an address was given out twice"
        self.lab.nsm("disconnect", "--netns", fresh).ok()


def populated(lab, *options, first=""):
    lab.up(*options)
    lab.apply(documents(*filter(None, [first, BOX, responder()]))).ok()
    lab.nsm("connect", "kernel://ping/nsm-1", "--netns", lab.namespace("hand"), "--name", "hand").ok()
    return lab


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid))


@pytest.mark.parametrize("options", [[], ["--separate"], ["--nodes", "2"]], ids=" ".join)
def test_the_daemon_is_killed(options):
    """Up goes on with processes, namespaces and wires; nobody who sends a packet notices. Down is clean.

    Roles that run apart are the same processes, and speak with one another and the new daemon.
    """
    with Lab() as lab:
        life = Life(populated(lab, *options))
        roles = [(row["role"], row["pid"]) for row in lab.status()["roles"]]
        for _ in range(2):
            kill(lab.daemon())
            assert "removed" not in lab.nsm("up", *options).ok().out
            until(lambda: lab.row("endpoints", "responder")["state"] == "ready", 10)
        life.goes_on()
        if options:
            assert [(row["role"], row["pid"]) for row in lab.status()["roles"]] == roles
        lab.nsm("down").ok()
        assert lab.left() == []


@pytest.mark.parametrize("role", ["registry", "nsmgr", "forwarder"])
def test_a_role_is_killed(role):
    """The supervisor starts it again, and it knows what it had agreed."""
    with Lab() as lab:
        life = Life(populated(lab, "--separate"))
        pid = next(row["pid"] for row in lab.status()["roles"] if row["role"] == role)
        kill(pid)
        life.goes_on()


@pytest.mark.skipif(bool(lacks("SRV6")), reason=f"SRV6: {lacks('SRV6')}")
def test_forwarders_of_both_nodes_are_killed():
    """What a wire by segment routing hangs on is in the kernel; nothing of it stays when all ends."""
    with Lab() as lab:
        life = Life(populated(lab, "--nodes", "2", "--mechanisms", "SRV6", first=IP))
        assert any(len(row["nodes"]) == 2 for row in lab.get("connections"))
        pids = [row["pid"] for row in lab.status()["roles"] if row["role"] == "forwarder"]
        for pid in pids:
            kill(pid)
        life.goes_on()
        lab.nsm("down").ok()
        assert lab.left() == []


def test_an_endpoints_process_is_killed():
    """Its wires stay, and what it had given out is given to nobody else."""
    with Lab() as lab:
        life = Life(populated(lab))
        kill(life.pids["responder"])
        until(lambda: lab.row("endpoints", "responder")["pid"] not in (None, 0, life.pids["responder"]), 10)
        life.goes_on(but=["responder"])


def test_all_are_killed_at_once():
    """Daemon and endpoint: the wires are all that is left, and they are gone on with."""
    with Lab() as lab:
        life = Life(populated(lab))
        pids = [lab.daemon(), life.pids["responder"]]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        until(lambda: all(map(is_gone, pids)))
        lab.nsm("up").ok()
        life.goes_on(but=["responder"])


@pytest.mark.parametrize("options", [[], ["--separate"], ["--nodes", "2"]], ids=" ".join)
def test_all_is_restarted(options):
    """By the book: each process is another one, and every wire the same."""
    with Lab() as lab:
        life = Life(populated(lab, *options))
        daemon = lab.daemon()
        out = lab.nsm("restart").ok().out
        assert f"the daemon of the mesh {lab.mesh} restarted: pid {daemon} became {lab.daemon()}" in out
        apart = ("registry", "nsmgr", "forwarder") if options == ["--separate"] else ()
        assert all(f"{name} restarted in " in out for name in ("responder", *apart)), out
        life.goes_on(but=["responder"])
        lab.nsm("down").ok()
        assert lab.left() == []


def test_what_cannot_be_restarted_is_told():
    """A role that is a part of the daemon, and a name that nobody has."""
    with Lab() as lab:
        lab.nsm("restart").fails("is not up", code=3)
        lab.up()
        lab.nsm("restart", "forwarder").fails("the forwarder is a part of the daemon", "nsm restart daemon")
        lab.nsm("restart", "nobody").fails("there is no role or endpoint nobody", "there are: daemon, all")
        lab.nsm("restart", "daemon").ok()
        lab.nsm("restart", "daemon").ok()
