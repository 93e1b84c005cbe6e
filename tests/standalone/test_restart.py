"""Processes of a mesh end and follow one another while Requests come in, and none is refused."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from asking import Asking
from mesh_lab import BOX, Lab, documents, is_gone, responder, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


def asking(lab):
    space = lab.namespace("asks")
    return Asking(str(lab.run), "ping", f"/run/netns/{space}")


def populated(lab, *options):
    lab.up(*options)
    lab.apply(documents(responder(), BOX)).ok()
    return lab


def pids(lab):
    found = {row["role"]: row["pid"] for row in lab.status()["roles"]}
    return found | {"responder": lab.row("endpoints", "responder")["pid"]}


@pytest.mark.parametrize("options", [[], ["--separate"]], ids=["one process", "apart"])
def test_all_is_restarted_while_requests_come_in(options):
    """``nsm restart``: every Request of a steady stream is granted, and every Close."""
    with Lab() as lab:
        populated(lab, *options)
        with asking(lab) as stream:
            before = pids(lab)
            lab.nsm("restart").ok()
            assert not set(before.values()) & set(pids(lab).values())
            time.sleep(0.3)
            assert stream.end().refused == []
            assert stream.count > 5


def test_all_roles_are_killed_while_requests_come_in():
    """SIGKILL to four processes at once: who asks after that waits for the next ones, and is not refused."""
    with Lab() as lab:
        populated(lab, "--separate")
        with asking(lab) as stream:
            before = pids(lab)
            for pid in before.values():
                os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            until(lambda: all(map(is_gone, before.values())))
            until(lambda: None not in pids(lab).values() and 0 not in pids(lab).values(), 10)
            time.sleep(1.0)
            assert stream.end().refused_since(killed) == []
            assert stream.count > 4


def fork_server(lab):
    """Return the pid of the mesh's fork server."""
    title = f"nsm --mesh {lab.mesh} --run-dir {lab.run} fork-server".encode().replace(b" ", b"\0")
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().rstrip(b"\0-") == title:
                return int(entry.name)
        except OSError:
            continue
    return None


def test_the_fork_server_dies():
    """What it started goes on, a process that dies meanwhile is started all the same, and it comes again."""
    with Lab() as lab:
        populated(lab, "--separate")
        before = pids(lab)
        first = fork_server(lab)
        os.kill(first, signal.SIGKILL)
        until(lambda: is_gone(first))
        os.kill(before["forwarder"], signal.SIGKILL)
        until(lambda: pids(lab)["forwarder"] not in {None, before["forwarder"]}, 10)
        after = pids(lab)
        assert {name for name in before if before[name] != after[name]} == {"forwarder"}
        until(lambda: fork_server(lab) not in {None, first}, 15)
        lab.nsm("restart", "forwarder").ok()
        until(lambda: lab.row("clients", "box")["state"] == "up")


def test_who_is_killed_again_and_again_is_not_waited_for():
    """The socket of a process that cannot stay is closed: who dials is refused at once, and told so."""
    with Lab() as lab:
        lab.up()
        lab.write("dies.py", "import os\nos._exit(3)\n")
        text = (
            responder("dies")
            .replace("icmp-responder", "./dies.py:Never")
            .replace("  options:\n    cidr_prefix: 172.30.0.0/24\n", "")
        )
        lab.nsm("apply", "-f", str(lab.write("dies.yaml", text))).fails("endpoint dies did not become ready")
        assert not (lab.run / "sock" / "dies.sock").exists()
