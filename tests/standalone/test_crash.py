"""The daemon is killed: what it left is told, taken away, or put up again; the machine is as it was."""

import os
import signal
from pathlib import Path

import pytest
from mesh_lab import BOX, documents, end, is_gone, ping, ping_pid, responder, until

pytestmark = pytest.mark.root

ALL = (
    BOX
    + """---
apiVersion: nsmesh/v1
kind: Link
metadata: {name: cable}
spec:
  ends:
    - {of: box, interface: eth0, addresses: [192.0.2.1/30]}
    - {of: outside, interface: eth0, addresses: [192.0.2.2/30]}
---
apiVersion: nsmesh/v1
kind: Workload
metadata: {name: outside}
spec: {}
"""
)


def populated(lab):
    """Bring up a mesh with an endpoint, workloads, a link, and a wire into a namespace of the user's."""
    lab.up()
    lab.apply(documents(ALL, responder())).ok()
    resident = lab.resident()
    lab.nsm("connect", "kernel://ping/nsm-9", "--pid", str(resident.pid)).ok()
    return resident


def links_of(pid):
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    return [line.split(":")[0].strip() for line in lines]


def test_status_and_down_after_a_kill(lab):
    """Status names what a dead daemon left; down takes it away, in the namespaces of others too."""
    resident = populated(lab)
    children = [row["pid"] for kind in ("endpoints", "clients") for row in lab.get(kind) if row["pid"]]
    lab.kill_daemon()
    assert not any(is_gone(pid) for pid in children)
    lab.nsm("status").fails(
        f"the mesh {lab.mesh} is dead; it left",
        "6 things",
        "process box (pid",
        "process fork-server (pid",
        f"namespace {lab.mesh}.box",
        "-> start it again with: nsm",
        code=3,
    )
    lab.nsm("get", "services").fails("is not up", code=3)
    done = lab.nsm("down").ok()
    assert "removed what a dead mesh had left: process responder (pid" in done.out
    assert f"removed what a dead mesh had left: interface nsm-9 in /proc/{resident.pid}/ns/net" in done.out
    assert f"mesh {lab.mesh} was not up" in done.out
    assert lab.left() == []
    assert links_of(resident.pid) == ["lo"]
    assert all(map(is_gone, children))
    assert not lab.run.exists()


def test_down_after_all_were_killed_at_once(lab):
    """Daemon, registry, manager, forwarder and endpoint, all dead: status says so, down leaves nothing."""
    lab.up("--separate")
    resident = lab.resident()
    lab.apply(responder()).ok()
    lab.nsm("connect", "kernel://ping/nsm-9", "--pid", str(resident.pid)).ok()
    pids = [
        lab.daemon(),
        *(role["pid"] for role in lab.status()["roles"]),
        lab.row("endpoints", "responder")["pid"],
    ]
    assert len(set(pids)) == 5
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(map(is_gone, pids)))
    lab.nsm("status").fails(f"the mesh {lab.mesh} is dead; it left", code=3)
    lab.nsm("down", "--purge").ok()
    assert lab.left() == []
    assert links_of(resident.pid) == ["lo"]
    assert not lab.run.exists()
    assert not lab.state.exists()


def test_up_after_a_kill(lab):
    """Up after a crash puts up again what was applied: processes, wires, links."""
    populated(lab)
    lab.kill_daemon()
    done = lab.nsm("up").ok()
    assert f"mesh {lab.mesh} is up" in done.out
    assert lab.row("endpoints", "responder")["state"] == "ready"
    assert lab.row("clients", "box")["state"] == "up"
    assert lab.row("links", "cable")["state"] == "up"
    assert ping(f"{lab.mesh}.box", "172.30.0.0")
    assert ping(f"{lab.mesh}.box", "192.0.2.2")
    assert lab.spaces() == ["box", "outside", "responder"]


def test_up_after_a_kill_when_all_is_gone(lab):
    """The same when processes and namespaces went with the daemon, as after a restart of the machine."""
    populated(lab)
    pids = [row["pid"] for kind in ("endpoints", "clients") for row in lab.get(kind) if row["pid"]]
    lab.kill_daemon()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for name in lab.spaces():
        os.system(f"ip netns delete {lab.mesh}.{name}")
    lab.nsm("up").ok()
    assert ping(f"{lab.mesh}.box", "172.30.0.0")
    assert ping(f"{lab.mesh}.box", "192.0.2.2")


def test_up_after_down(lab):
    """What was applied comes back after an orderly end too; --purge forgets it."""
    populated(lab)
    lab.nsm("down").ok()
    assert lab.left() == []
    lab.up()
    assert ping(f"{lab.mesh}.box", "172.30.0.0")
    lab.nsm("down", "--purge").ok()
    assert not lab.state.exists()
    lab.up()
    assert lab.get("endpoints") == lab.get("clients") == lab.get("services") == []


def test_up_says_what_cannot_be_put_up_again(lab):
    """A document whose process or file is gone is told, and the others are there."""
    lab.up()
    resident = lab.resident()
    tenant = (
        "apiVersion: nsmesh/v1\nkind: Workload\nmetadata:\n  name: tenant\n  annotations:\n"
        f"    networkservicemesh.io: kernel://ping/nsm-1\nspec: {{pid: {resident.pid}}}"
    )
    lab.apply(documents(tenant, responder())).ok()
    assert ping_pid(resident.pid, "172.30.0.0")
    lab.nsm("down").ok()
    end(resident)
    done = lab.nsm("up").ok()
    assert f"workload tenant is not as it was: there is no process {resident.pid}" in done.out
    assert lab.row("clients", "tenant")["state"] == "gone"
    assert lab.row("endpoints", "responder")["state"] == "ready"
    lab.nsm("delete", "workload", "tenant").ok()
    assert lab.get("clients") == []


def test_a_stopped_daemon(lab):
    """Of a daemon that hangs, every command says that nobody answers, and down says how to end it."""
    lab.up()
    pid = lab.daemon()
    os.kill(pid, signal.SIGSTOP)
    try:
        lab.nsm("status").fails(
            f"the daemon of the mesh {lab.mesh} (pid {pid}) does not answer", f"kill -9 {pid}; nsm"
        )
    finally:
        os.kill(pid, signal.SIGCONT)
