"""Listening: on paths of every length, on ports, and where somebody else is in the way."""

import os
import socket
import time

import pytest
from rpc_helpers import dial

from nsmesh.core.errors import Conflict, Invalid, Unavailable
from nsmesh.rpc.address import parse
from nsmesh.rpc.listening import listen, listening_url


def test_a_long_path_is_listened_on_and_dialled(tmp_path):
    """Paths beyond the 107 bytes of a socket address work for both sides."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    url = f"unix://{folder}/server.sock"
    with listen(parse(url), 0o600):
        assert dial(url) == socket.AF_UNIX
        assert (folder / "server.sock").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Unavailable, match="refused"):
        dial(url)
    with pytest.raises(Invalid, match="too many"):
        listen(parse(f"unix://{folder}/{'n' * 150}"), 0o600)


def test_a_descriptor_of_a_socket_file_is_dialled(tmp_path):
    """``/proc/<pid>/fd/N`` of an O_PATH descriptor reaches the listener, even when its file was unlinked."""
    path = tmp_path / "server.sock"
    with listen(parse(f"unix://{path}"), 0o600):
        handle = os.open(path, os.O_PATH)
        path.unlink()
        assert dial(f"unix:///proc/{os.getpid()}/fd/{handle}") == socket.AF_UNIX
        os.close(handle)


def test_an_abstract_socket_is_listened_on_and_dialled():
    """A socket without a file."""
    url = f"unix://@nsmesh-test-{os.getpid()}-{time.monotonic_ns()}"
    with listen(parse(url), 0o600):
        assert dial(url) == socket.AF_UNIX
        with pytest.raises(Conflict):
            listen(parse(url), 0o600)


def test_a_stale_file_is_replaced_and_a_live_one_is_not(tmp_path):
    """A dead listener's file makes way; a live listener, or a file that is no socket, is an error."""
    where = parse(f"unix://{tmp_path}/server.sock")
    listen(where, 0o600).close()
    with listen(where, 0o640):
        assert (tmp_path / "server.sock").stat().st_mode & 0o777 == 0o640
        with pytest.raises(Conflict, match="a live server"):
            listen(where, 0o600)
    (tmp_path / "file").write_text("x")
    with pytest.raises(Conflict, match="no socket"):
        listen(parse(f"unix://{tmp_path}/file"), 0o600)
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_that_is_missing_is_said(tmp_path):
    """Listening in a folder that does not exist fails with the address in the text."""
    with pytest.raises(Unavailable, match=r"none/server\.sock"):
        listen(parse(f"unix://{tmp_path}/none/server.sock"), 0o600)


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "tcp://localhost:0", "tcp://[::1]:0", "tcp://:0"])
def test_tcp_listeners_tell_their_port(url):
    """Port 0 becomes the real one in the URL, and that URL can be dialled."""
    try:
        sock = listen(parse(url), 0)
    except Unavailable:
        pytest.skip("this machine has no such address")
    with sock:
        real = listening_url(parse(url), sock)
        assert not real.endswith(":0")
        dial(real)
        with pytest.raises(Conflict, match="in use"):
            listen(parse(real), 0)
