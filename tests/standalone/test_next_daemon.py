"""After a kill of the daemon the next one is forked off what that left: no Python starts, nothing is loaded.

How fast that is stands in the table of docs/reliability.md; here is what it hangs on.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from mesh_lab import BOX, Lab, documents, finish, is_gone, responder, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid))


def fork_server(lab):
    """Return the pid of the mesh's fork server, once the daemon has one that outlives it."""

    def known():
        return json.loads((lab.run / "children.json").read_text())["processes"].get("fork-server")

    until(lambda: known() and not is_gone(known()[0]), 20)
    return known()[0]


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("options", [[], ["--separate"]], ids=["one process", "apart"])
def test_it_is_forked_off_the_fork_server(options):
    """One fork server has all daemons that follow a kill; they restart by the book; it ends with the mesh."""
    with Lab() as lab:
        lab.up(*options)
        lab.apply(documents(responder(), BOX)).ok()
        server = fork_server(lab)
        for _ in range(3):
            kill(lab.daemon())
            assert "removed" not in lab.nsm("up", *options).ok().out
            assert parent(lab.daemon()) == server
            assert fork_server(lab) == server
        until(lambda: lab.row("clients", "box")["state"] == "up", 20)
        lab.nsm("restart", "daemon").ok()  # by an exec, which has a fork server of its own
        assert fork_server(lab) != server
        until(lambda: is_gone(server))
        last = fork_server(lab)
        lab.nsm("down").ok()
        assert is_gone(last)
        assert lab.left() == []


def test_one_that_is_not_asked_ends():
    """Killed with its daemon it is replaced; ``up --foreground`` starts its own, and that of before ends."""
    with Lab() as lab:
        lab.up()
        before = [fork_server(lab), lab.daemon()]
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: all(map(is_gone, before)))
        lab.up()
        second = fork_server(lab)
        assert parent(lab.daemon()) != second
        kill(lab.daemon())
        with lab.process("up", "--foreground") as front:
            try:
                until(lambda: (lab.run / "lock").read_text().startswith(f"{front.pid} "), 30)
                until(lambda: fork_server(lab) != second, 30)
                until(lambda: is_gone(second))
            finally:
                front.send_signal(signal.SIGINT)
                finish(front)
        assert lab.left() == []


def test_it_goes_with_what_a_dead_mesh_left():
    """Down after a kill takes it away, and an ``up`` in another mode forks off it all the same."""
    with Lab() as lab:
        lab.up()
        server = fork_server(lab)
        kill(lab.daemon())
        lab.up("--separate")
        assert parent(lab.daemon()) == server
        assert fork_server(lab) == server
        kill(lab.daemon())
        lab.nsm("down").ok()
        assert is_gone(server)
        assert lab.left() == []
