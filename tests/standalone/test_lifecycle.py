"""A mesh comes up and goes down: once, twice, beside others, over the remains of a dead one."""

import json
import os
import signal
import socket
from pathlib import Path

import pytest
from mesh_lab import Lab, finish, nsm, ping, responder, until

pytestmark = pytest.mark.root


def test_up_twice_and_down_twice(lab):
    """Up and down say what they find, do nothing a second time, and down leaves no directory."""
    done = lab.nsm("up").ok()
    assert f"mesh {lab.mesh} is up (pid {lab.daemon()}, {lab.run})" in done.out
    again = lab.nsm("up").ok()
    assert again.out == f"mesh {lab.mesh} is up already (pid {lab.daemon()})\n"
    assert lab.nsm("down").ok().out.splitlines() == [f"mesh {lab.mesh} goes down", f"mesh {lab.mesh} is down"]
    assert not lab.run.exists()
    assert lab.nsm("down").ok().out == f"mesh {lab.mesh} was not up\n"
    assert lab.left() == []


def test_commands_of_a_mesh_that_is_not_up(lab):
    """Each says that the mesh is not up, and how to change that, with exit code 3."""
    for words in (
        ["status"],
        ["get", "services"],
        ["connect", "kernel://a", "--netns", "x"],
        ["describe", "nse", "x"],
    ):
        lab.nsm(*words).fails(
            f"error: the mesh {lab.mesh} is not up", f"-> start it with: nsm --mesh {lab.mesh} up", code=3
        )
    assert not lab.run.exists()


def test_a_second_daemon_is_refused(lab):
    """A daemon in the foreground refuses to be the second one, and names the first; -q leaves the error."""
    lab.up()
    pid = lab.daemon()
    finish(lab.process("-q", "up", "--foreground")).fails(
        f"error: the mesh {lab.mesh} is up already (pid {pid})", "nsm --mesh"
    )
    assert lab.status()["pid"] == pid


def test_foreground_ends_with_a_signal(lab):
    """Ctrl-C takes a mesh in the foreground down, with all that was made, and its directory."""
    daemon = lab.process("up", "--foreground")
    until(lambda: lab.nsm("status").code == 0)
    lab.apply(responder()).ok()
    assert lab.spaces() == ["responder"]
    daemon.send_signal(signal.SIGINT)
    done = finish(daemon)
    assert done.code == 0, done
    assert lab.left() == []
    assert not lab.run.exists()


def test_a_start_that_is_broken_off_leaves_nothing(lab):
    """SIGTERM in the middle of a start, also of separate processes, takes away what was started."""
    daemon = lab.process("up", "--foreground", "--separate")
    until(
        lambda: (
            (lab.run / "children.json").exists() and '"registry"' in (lab.run / "children.json").read_text()
        )
    )
    daemon.send_signal(signal.SIGTERM)
    assert finish(daemon).code == 0
    assert lab.left() == []


def test_meshes_side_by_side():
    """Two meshes on one host know nothing of each other; taking one down leaves the other as it was."""
    with Lab() as one, Lab() as two:
        for lab in (one, two):
            lab.up()
            lab.apply(responder()).ok()
            space = lab.namespace("c")
            lab.nsm("connect", "kernel://ping/nsm-1", "--netns", space).ok()
        assert [row["name"] for row in one.get("clients")] == [f"{one.mesh}-c"]
        one.nsm("down").ok()
        assert [row["name"] for row in two.get("clients")] == [f"{two.mesh}-c"]
        assert ping(f"{two.mesh}-c", "172.30.0.0")
        assert one.links(f"{one.mesh}-c") == []


def test_directories_belong_to_one_mesh(lab):
    """Another mesh cannot have the run or state directory of a living one; the error names the owner."""
    lab.up()
    other = ["--mesh", "other", "--run-dir", str(lab.run), "--state-dir", str(lab.root / "s")]
    nsm(*other, "up").fails(
        f"the run directory {lab.run} belongs to the mesh {lab.mesh} (pid {lab.daemon()})"
    )
    other = ["--mesh", "other", "--run-dir", str(lab.root / "r"), "--state-dir", str(lab.state)]
    nsm(*other, "up").fails(
        f"the state directory {lab.state} belongs to the mesh {lab.mesh} (pid {lab.daemon()})"
    )
    nsm("--mesh", "other", "--run-dir", str(lab.run), "down").fails("belongs to the mesh")
    assert lab.status()["state"] == "up"


def test_variables_say_where_the_mesh_is(lab, monkeypatch):
    """NSM_MESH, NSM_RUN_DIR and NSM_STATE_DIR stand for the options; options win."""
    monkeypatch.setenv("NSM_MESH", lab.mesh)
    monkeypatch.setenv("NSM_RUN_DIR", str(lab.run))
    monkeypatch.setenv("NSM_STATE_DIR", str(lab.state))
    nsm("up").ok()
    status = nsm("status", "-o", "json").ok().json()
    assert (status["mesh"], status["run_dir"], status["state_dir"]) == (
        lab.mesh,
        str(lab.run),
        str(lab.state),
    )
    nsm("--run-dir", str(lab.root / "no"), "status").fails("is not up", code=3)


def test_unusable_places(lab):
    """A mesh name that is no label, a run directory too long for sockets, one that cannot be made."""
    nsm("--mesh", "No_Good", "status").fails("the mesh name 'No_Good' cannot be used", "lower-case letters")
    deep = str(lab.root / ("d" * 80))
    nsm("--mesh", "x", "--run-dir", deep, "--state-dir", str(lab.state), "up").fails(
        f"the run directory {deep} is too long for unix sockets", "--run-dir"
    )
    file = lab.write("file", "")
    nsm("--mesh", "x", "--run-dir", str(file / "run"), "up").fails(
        f"{file / 'run'} cannot be made: Not a directory", "--run-dir"
    )


def test_what_a_dead_daemon_left_on_disk_is_no_hindrance(lab):
    """Stale sockets, a stale lock with the pid of somebody else, and a damaged list of children."""
    lab.run.mkdir()
    for name in ("control.sock", "nsm.io.sock", "workload.sock"):
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(str(lab.run / name))
        stale.close()
    (lab.run / "lock").write_text("1 whoever\n")
    (lab.run / "children.json").write_text("{ this is no JSON")
    lab.nsm("status").fails("is not up", code=3)
    lab.up()
    assert lab.status()["state"] == "up"


def test_status(lab):
    """Status has roles, endpoints, clients and wires, as a table and as JSON."""
    lab.up()
    lab.apply(responder()).ok()
    space = lab.namespace("c")
    lab.nsm("connect", "kernel://ping/nsm-1", "--netns", space, "--name", "c").ok()
    status = lab.status()
    assert status["state"] == "up"
    assert status["mode"] == "one process"
    assert status["connections"] == 1
    assert status["dead"] == []
    assert [row["role"] for row in status["roles"]] == ["registry", "nsmgr", "forwarder"]
    assert {row["state"] for row in status["roles"]} == {"running"}
    table = lab.nsm("status").ok().out
    assert f"mesh {lab.mesh}: up, pid {lab.daemon()}" in table
    for piece in ("roles", "ROLE", "endpoints", "responder", "clients", "c ", "1/1"):
        assert piece in table
    assert "dead" not in table


def test_two_ups_at_once(lab):
    """Two users who start the same mesh at the same moment get one mesh, and no mess."""
    first, second = lab.process("up"), lab.process("up")
    codes = [finish(first), finish(second)]
    assert any(done.code == 0 for done in codes), codes
    for done in codes:
        assert "Traceback" not in done.err
        if done.code:
            assert "is up already" in done.err
    assert lab.status()["pid"] == lab.daemon()


def test_up_with_files(lab):
    """Files are checked before the mesh is started, and applied once it is up."""
    bad = lab.write("bad.yaml", "apiVersion: nsmesh/v1\nkind: Endpont\n")
    lab.nsm("up", "-f", str(bad)).fails("bad.yaml:2:7: nsmesh/v1 has no kind 'Endpont'")
    assert not lab.run.exists()
    good = lab.write("good.yaml", responder())
    done = lab.nsm("up", "-f", str(good)).ok()
    assert "endpoint responder (icmp-responder) ready" in done.out


def test_a_daemon_that_cannot_start_says_why(lab):
    """The error of the daemon is the error of ``nsm up``, not a pointer to a log."""
    lab.state.mkdir()
    (lab.state / "registry.db").mkdir()
    lab.nsm("up").fails(
        f"the daemon of the mesh {lab.mesh} did not start: ", "registry", "registry.db", "-> see "
    )
    assert lab.left() == []


def test_the_common_directories_go_with_the_last_mesh():
    """The default directories are made and removed: the machine is as it was before."""
    name = f"d{os.getpid()}"
    run, state = Path("/run/nsmesh") / name, Path("/var/lib/nsmesh") / name
    try:
        nsm("--mesh", name, "up").ok()
        assert json.loads(nsm("--mesh", name, "status", "-o", "json").ok().out)["run_dir"] == str(run)
    finally:
        nsm("--mesh", name, "down", "--purge").ok()
    assert not run.exists()
    assert not state.exists()
