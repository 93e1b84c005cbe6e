"""Registry, manager and forwarder as processes of their own: each of them dies, and comes again."""

import os
import signal
import subprocess
import time

import pytest
from mesh_lab import Lab, is_gone, ping, responder, until

pytestmark = pytest.mark.root

ROLES = ("registry", "nsmgr", "forwarder")


@pytest.fixture(scope="module")
def mesh():
    with Lab() as lab:
        lab.up("--separate")
        lab.apply(responder()).ok()
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
