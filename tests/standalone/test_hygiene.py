"""The daemon keeps nothing of what is over: descriptors, memory, interfaces; and asyncio has no complaint."""

import gc
import os
import re
from pathlib import Path

import pytest
from mesh_lab import Lab, finish, responder, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]  # hundreds of commands, each a start of Python

ROUNDS = 40


@pytest.fixture(scope="module")
def mesh():
    """Bring a mesh up in asyncio's debug mode, which complains of coroutines that nobody awaits."""
    with Lab() as lab:
        os.environ["PYTHONASYNCIODEBUG"] = "1"
        os.environ["PYTHONWARNINGS"] = "always::RuntimeWarning,always::ResourceWarning"
        try:
            lab.up()
        finally:
            del os.environ["PYTHONASYNCIODEBUG"], os.environ["PYTHONWARNINGS"]
        lab.apply(responder()).ok()
        yield lab


def state(mesh):
    """Return descriptors and resident kilobytes of the daemon, and its threads."""
    place = Path(f"/proc/{mesh.daemon()}")
    memory = int(re.search(r"VmRSS:\s+(\d+)", (place / "status").read_text())[1])
    threads = len(list((place / "task").iterdir()))
    return len(list((place / "fd").iterdir())), memory, threads


def rounds(mesh, space, count):
    for _ in range(count):
        mesh.nsm("connect", "kernel://ping/nsm-1", "--netns", space).ok()
        mesh.nsm("disconnect", "--netns", space).ok()
    until(lambda: mesh.links(space) == [])


def test_many_wires_leave_nothing(mesh):
    """After forty more wires came and went the daemon holds what it held after ten."""
    space = mesh.namespace("c")
    rounds(mesh, space, 10)
    gc.collect()
    descriptors, memory, _ = state(mesh)
    rounds(mesh, space, ROUNDS)
    until(lambda: state(mesh)[0] <= descriptors, 5, lambda: f"{state(mesh)[0]} instead of {descriptors}")
    assert state(mesh)[1] - memory < 6 << 10
    assert mesh.get("connections") == mesh.get("clients") == []


def test_watchers_that_go_away_leave_nothing(mesh):
    """Watches that are broken off in all ways are forgotten."""
    descriptors = state(mesh)[0]
    for kind in ("services", "events", "clients"):
        watch = mesh.process("get", kind, "-w")
        assert watch.stdout.readline()
        watch.send_signal(2)
        finish(watch).fails("interrupted", code=130)
    until(lambda: state(mesh)[0] <= descriptors, 5)


def test_failures_leave_nothing(mesh):
    """Requests that fail leave no descriptor either."""
    space = mesh.namespace("f")
    mesh.nsm("connect", "kernel://no-such/nsm-1", "--netns", space).fails("not found")
    descriptors = state(mesh)[0]
    for _ in range(10):
        mesh.nsm("connect", "kernel://no-such/nsm-1", "--netns", space).fails("not found")
        mesh.apply(responder("bad", "bad", "nonsense") + "  restart: sometimes\n").fails("sometimes")
    until(lambda: state(mesh)[0] <= descriptors, 5)


def test_no_complaints(mesh):
    """In debug mode asyncio said nothing of lost coroutines, and no task failed."""
    mesh.nsm("delete", "endpoint", "responder").ok()
    log = (mesh.run / "logs" / "daemon.log").read_text()
    for piece in (
        "never awaited",
        "never retrieved",
        "ResourceWarning",
        "Traceback",
        "background task failed",
    ):
        assert piece not in log, log
