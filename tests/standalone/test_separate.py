"""Registry, manager and forwarder as processes of their own: each of them dies, and comes again."""

import os
import signal
import socket
import subprocess
import time

import pytest
from mesh_lab import ENDPOINT, FUNCTIONS, Lab, documents, finish, is_gone, ping, responder, until

pytestmark = pytest.mark.root

ROLES = ("registry", "nsmgr", "forwarder")


@pytest.fixture(scope="module")
def mesh():
    with Lab() as lab:
        lab.up("--separate")
        lab.write("functions.py", FUNCTIONS)
        slow = ENDPOINT.format(name="slow", cls="Slow", prefix="172.27.0.0/24")
        lab.nsm("apply", "-f", str(lab.write("slow.yaml", documents(responder(), slow)))).ok()
        space = lab.namespace("old")
        lab.nsm("connect", "kernel://ping/nsm-1", "--netns", space, "--name", "old").ok()
        yield lab


def pid_of(mesh, role):
    return next(row["pid"] for row in mesh.status()["roles"] if row["role"] == role)


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid))


class Pings:
    """Packets over a wire, five a second each 20 ms; how many were lost is known at the end."""

    def __init__(self, namespace, address):
        argv = ["ip", "netns", "exec", namespace, "ping", "-n", "-q", "-i", "0.02", address]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def lost(self):
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=10)
        counts = out.partition(" packets transmitted, ")
        return int(counts[0].split()[-1]) - int(counts[2].split()[0])


def test_each_role_is_a_process(mesh):
    """The roles have pids of their own, and logs."""
    pids = {pid_of(mesh, role) for role in ROLES}
    assert len(pids) == 3
    assert mesh.daemon() not in pids
    assert mesh.status()["mode"] == "separate"
    for role in ROLES:
        assert mesh.nsm("logs", role).ok().out


def test_each_role_has_an_identity(mesh):
    """Policies can tell the roles apart, though one user runs them all."""
    for role in ROLES:
        assert f"spiffe://{mesh.mesh}.nsmesh/nsm/{role}" in mesh.nsm("logs", role).ok().out


def test_an_endpoint_that_ends_by_force_is_deleted(mesh):
    """It could not unregister itself, and nobody else may: it is shown as deleted, and its name is free."""
    file = mesh.write("mute.yaml", ENDPOINT.format(name="mute", cls="Slow", prefix="172.28.0.0/24"))
    for _ in range(2):
        mesh.nsm("apply", "-f", str(file)).ok()
        pid = next(row["pid"] for row in mesh.get("endpoints") if row["name"] == "mute")
        os.kill(pid, signal.SIGSTOP)  # deaf to SIGTERM
        mesh.nsm("delete", "endpoint", "mute").ok()
        until(lambda pid=pid: is_gone(pid))
        left = [row for row in mesh.get("endpoints") if row["name"] == "mute"]
        assert [(row["pid"], row["state"]) for row in left] in ([], [(None, "deleted")])


@pytest.mark.parametrize("role", ROLES)
def test_a_role_dies(mesh, role):
    """The wire goes on without losing a packet, the role is started again, new requests are served."""
    before = mesh.row("connections", "old-0")
    pings = Pings(f"{mesh.mesh}-old", "172.30.0.0")
    pid = pid_of(mesh, role)
    kill(pid)
    until(lambda: pid_of(mesh, role) not in (None, pid))
    dead = mesh.status()["dead"]
    assert {"name": role, "why": "killed by SIGKILL", "restarted": True}.items() <= dead[-1].items()
    space = mesh.namespace(f"new-{role}")
    until(lambda: mesh.nsm("connect", "kernel://ping/nsm-1", "--netns", space).code == 0, 15)
    assert ping(
        space, mesh.row("connections", f"{mesh.mesh}-new-{role}-0")["peer_address"][0].partition("/")[0]
    )
    until(lambda: mesh.row("clients", "old")["state"] == "up", 15)
    until(lambda: mesh.get("connections", "old-0"), 15)
    time.sleep(0.5)
    after = mesh.row("connections", "old-0")
    assert (after["address"], after["endpoint"]) == (before["address"], before["endpoint"])
    assert pings.lost() == 0


def listens(path):
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


@pytest.mark.parametrize("victim", [*ROLES, "slow"])
def test_death_in_mid_request(mesh, victim):
    """A request that somebody dies of fails with a sentence, or is answered; half a wire there never is."""
    until(lambda: all(listens(path) for path in mesh.run.glob("sock/*.sock")))  # after the last death
    space = mesh.namespace(f"mid-{victim}")
    before = {row["id"] for row in mesh.get("connections")}
    asking = mesh.process("connect", "kernel://slow/nsm-1", "--netns", space, "--name", f"mid-{victim}")
    until(
        lambda: (
            asking.poll() is not None or [row for row in mesh.get("clients") if row["state"] == "connecting"]
        )
    )
    assert asking.poll() is None, finish(asking)
    time.sleep(0.3)
    kill(mesh.row("endpoints", "slow")["pid"] if victim == "slow" else pid_of(mesh, victim))
    done = finish(asking)
    if done.code:
        done.fails("error: ")
        assert [row for row in mesh.get("clients") if row["name"] == f"mid-{victim}"] == []
        until(lambda: {row["id"] for row in mesh.get("connections")} <= before, 15)
        until(lambda: mesh.links(space) == [], 15, lambda: f"left: {mesh.links(space)}")
        until(lambda: mesh.nsm("connect", "kernel://slow/nsm-1", "--netns", space).code == 0, 20)
    until(lambda: mesh.links(space) == ["nsm-1"])
    mesh.nsm("disconnect", "--netns", space).ok()
    until(lambda: mesh.links(space) == [])


def test_down_is_clean(mesh):
    """Down takes everything away in time, whatever died before."""
    begin = time.monotonic()
    assert "removed" not in mesh.nsm("down").ok().text
    assert time.monotonic() - begin < 20
    assert mesh.left() == []
