"""The daemon's hold on its processes' sockets: opened, taken from a living process, given up."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nsmesh.core.process import start_ticks
from nsmesh.datapath import netns
from nsmesh.rpc.address import parse
from nsmesh.rpc.listening import listen
from nsmesh.standalone.held_sockets import HeldSockets
from nsmesh.standalone.processes import Started

SERVER = """
import sys
from nsmesh.rpc.address import parse
from nsmesh.rpc.listening import listen
held = [listen(parse(url), 0o600) for url in sys.argv[1:]]
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def server(*urls):
    child = subprocess.Popen(
        [sys.executable, "-c", SERVER, *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout.readline()
        yield Started(child.pid, start_ticks(child.pid))
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def reaches(path):
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def test_opened_once_and_closed_with_its_file(tmp_path):
    """The same socket for each start of a unit; after its release a dial finds nothing."""
    held = HeldSockets()
    url = f"unix://{tmp_path}/a.sock"
    first = held.open("a", [url])
    assert held.open("a", [url]) == first
    assert held.descriptors() == first
    assert reaches(tmp_path / "a.sock")
    held.release("a")
    assert not (tmp_path / "a.sock").exists()
    assert not held.holds("a")


def test_what_cannot_be_opened_is_left_to_the_process(tmp_path):
    """A file in the way is no failure here; the process will say so."""
    (tmp_path / "a.sock").write_text("x")
    held = HeldSockets()
    assert held.open("a", [f"unix://{tmp_path}/a.sock"]) == []


def test_taken_from_a_living_process(tmp_path):
    """A copy of its listening sockets, by address; they stay when the process is killed."""
    if os.geteuid():
        pytest.skip("only root may take descriptors of any process")
    held = HeldSockets()
    with listen(parse("tcp://127.0.0.1:0"), 0o600) as probe:
        port = probe.getsockname()[1]
    urls = [f"unix://{tmp_path}/a.sock", f"tcp://127.0.0.1:{port}"]
    with server(*urls, f"unix://{tmp_path}/other.sock") as process:
        held.take_over("a", urls, process)
        assert len(held.descriptors()) == 2
    assert reaches(tmp_path / "a.sock")
    assert not reaches(tmp_path / "other.sock")
    with socket.create_connection(("127.0.0.1", port)):
        pass
    held.close()
    assert (tmp_path / "a.sock").exists()
    assert not reaches(tmp_path / "a.sock")


def test_a_process_that_is_gone_has_nothing(tmp_path):
    """Nothing is held, and nothing fails."""
    with server() as process:
        pass
    held = HeldSockets()
    held.take_over("a", [f"unix://{tmp_path}/a.sock"], process)
    assert not held.holds("a")


@pytest.mark.root
def test_opened_in_the_namespace_of_the_unit():
    """A tcp socket of a node listens there, and not here."""
    with netns.temporary("held") as (name,):
        held = HeldSockets()
        held.open("a", ["tcp://127.0.0.1:5001"], name)
        try:
            ns = netns.open_netns(name)
            with netns.inside(ns), socket.create_connection(("127.0.0.1", 5001), timeout=2):
                pass
            os.close(ns)
            assert "0100007F:1389" not in Path("/proc/net/tcp").read_text()
        finally:
            held.close()
