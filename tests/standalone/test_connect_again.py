"""What was connected by hand comes back with the mesh: after a crash, after an orderly end, or not at all."""

import json

import pytest
from mesh_lab import end, ping, ping_pid, responder

pytestmark = pytest.mark.root


@pytest.fixture
def connected(lab):
    """Give a mesh with a namespace and a process of the user's, each with a wire."""
    lab.up()
    lab.apply(responder()).ok()
    space, process = lab.namespace("space"), lab.resident()
    lab.nsm("connect", "kernel://ping/nsm-1?app=x", "--netns", space, "--name", "box").ok()
    lab.nsm("connect", "kernel://ping/nsm-2", "--pid", str(process.pid)).ok()
    return lab, space, process


@pytest.mark.parametrize("how", ["killed", "down"])
def test_wires_come_back(connected, how):
    """A new daemon asks again for all that was connected, with the same names, ids and interfaces."""
    lab, space, process = connected
    before = {row["name"]: row["wires"] for row in lab.get("clients")}
    if how == "killed":
        lab.kill_daemon()
    else:
        lab.nsm("down").ok()
    done = lab.nsm("up").ok()
    assert "restored the wires of client box" in done.out
    assert {row["name"]: row["wires"] for row in lab.get("clients")} == before
    assert lab.links(space) == ["nsm-1"]
    assert ping(space, "172.30.0.0")
    assert any(ping_pid(process.pid, f"172.30.0.{last}") for last in (0, 2))
    assert lab.row("connections", "box-0")["labels"]["app"] == "x"


def test_what_is_gone_is_told_and_dropped(connected):
    """A process that ended while no daemon was there is told once; the other client is as it was."""
    lab, space, process = connected
    lab.kill_daemon()
    end(process)
    done = lab.nsm("up").ok()
    text = f"client pid-{process.pid} is not connected again: there is no process {process.pid}"
    assert text in done.out
    assert [row["name"] for row in lab.get("clients")] == ["box"]
    assert ping(space, "172.30.0.0")
    lab.kill_daemon()
    assert text not in lab.nsm("up").ok().out


def test_what_was_disconnected_stays_away(connected):
    """Neither a wire nor a client that was disconnected comes back; --purge forgets all."""
    lab, space, process = connected
    lab.nsm("connect", "kernel://ping/nsm-3", "--netns", space, "--name", "box").ok()
    lab.nsm("disconnect", "box-0").ok()
    lab.nsm("disconnect", "--pid", str(process.pid)).ok()
    known = json.loads((lab.state / "connects.json").read_text())
    assert [(item["client"], item["urls"]) for item in known] == [("box", ["kernel://ping/nsm-3"])]
    lab.kill_daemon()
    lab.nsm("up").ok()
    assert lab.links(space) == ["nsm-3"]
    assert [row["name"] for row in lab.get("clients")] == ["box"]
    lab.nsm("down", "--purge").ok()
    lab.nsm("up").ok()
    assert lab.get("clients") == []


def test_another_process_of_the_same_pid(connected):
    """A pid that was given out again is not the process that was connected."""
    lab, _, process = connected
    lab.kill_daemon()
    path = lab.state / "connects.json"
    items = json.loads(path.read_text())
    for item in items:
        item["ticks"] += 1
    path.write_text(json.dumps(items))
    assert f"process {process.pid} is another one now" in lab.nsm("up").ok().out
    assert lab.links(f"{lab.mesh}-space") == ["nsm-1"]
