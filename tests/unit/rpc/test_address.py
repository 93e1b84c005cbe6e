"""Addresses: what URLs mean, and what happens where nobody, or somebody else, listens."""

import asyncio
import os
import socket
import time

import pytest

from nsmesh.core.errors import Conflict, Invalid, TimedOut, Unauthorized, Unavailable
from nsmesh.rpc import address


@pytest.mark.parametrize(
    ("url", "path", "host", "port"),
    [
        ("unix:///run/a.sock", "/run/a.sock", "", 0),
        ("unix:/run/a.sock", "/run/a.sock", "", 0),
        ("unix:a.sock", "a.sock", "", 0),
        ("unix://@name", "\0name", "", 0),
        ("unix:@name", "\0name", "", 0),
        ("unix:///proc/12/fd/7", "/proc/12/fd/7", "", 0),
        ("tcp://127.0.0.1:5000", "", "127.0.0.1", 5000),
        ("tcp://:5001", "", "", 5001),
        ("registry:5002", "", "registry", 5002),
        ("[::1]:80", "", "::1", 80),
        ("tcp://[::1]:80", "", "::1", 80),
    ],
)
def test_urls_are_understood(url, path, host, port):
    """Every form of URL gives its address."""
    assert address.parse(url) == address.Address(url, path, host, port)


@pytest.mark.parametrize(
    "url", ["", "unix:", "unix://", "unix://@", "host", "host:x", "::1:80", "http://a:1", "a:70000"]
)
def test_other_urls_are_invalid(url):
    """What is no address is refused with the form that would be one."""
    with pytest.raises(Invalid, match="write"):
        address.parse(url)


def dial(url, timeout=1.0):
    async def main():
        with await address.dial(address.parse(url), timeout) as sock:
            return sock.family

    return asyncio.run(main())


def test_a_missing_socket_is_unavailable_at_once(tmp_path):
    """No file, no listener: said at once, with what to do."""
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"no such socket.*start the server"):
        dial(f"unix://{tmp_path}/none.sock", timeout=30)
    assert time.monotonic() - began < 0.5


def test_a_dead_socket_is_unavailable_at_once(tmp_path):
    """A file whose listener died refuses, and that is said at once."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(Unavailable, match="refused"):
        dial(f"unix://{tmp_path}/dead.sock", timeout=30)


def test_a_refused_port_is_unavailable_at_once():
    """The same on tcp."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(Unavailable, match="refused"):
        dial(f"tcp://127.0.0.1:{port}", timeout=30)


def test_a_full_backlog_times_out(tmp_path):
    """A listener that accepts nothing is waited for, and no longer than the timeout."""
    with socket.socket(socket.AF_UNIX) as full:
        full.bind(str(tmp_path / "full.sock"))
        full.listen(0)
        held = []
        while True:
            waiting = socket.socket(socket.AF_UNIX)
            waiting.settimeout(0)
            held.append(waiting)
            try:
                waiting.connect(str(tmp_path / "full.sock"))
            except BlockingIOError:
                break
        with pytest.raises(TimedOut, match=r"within 0\.1 s"):
            dial(f"unix://{tmp_path}/full.sock", timeout=0.1)
        for waiting in held:
            waiting.close()


def test_a_backlog_that_empties_is_taken(tmp_path):
    """A dial that met a full backlog goes through when there is room."""

    async def main():
        with socket.socket(socket.AF_UNIX) as full:
            full.bind(str(tmp_path / "full.sock"))
            full.listen(0)
            with socket.socket(socket.AF_UNIX) as first:
                first.connect(str(tmp_path / "full.sock"))
                loop = asyncio.get_running_loop()
                loop.call_later(0.02, lambda: full.accept()[0].close())  # noqa: PLW0108 - nothing is there yet
                with await address.dial(address.parse(f"unix://{tmp_path}/full.sock"), 2.0):
                    pass

    asyncio.run(main())


def test_a_long_path_is_listened_on_and_dialled(tmp_path):
    """Paths beyond the 107 bytes of a socket address work for both sides."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    url = f"unix://{folder}/server.sock"
    with address.listen(address.parse(url), 0o600):
        assert dial(url) == socket.AF_UNIX
        assert (folder / "server.sock").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Unavailable, match="refused"):
        dial(url)
    with pytest.raises(Invalid, match="too many"):
        address.listen(address.parse(f"unix://{folder}/{'n' * 150}"), 0o600)


def test_a_descriptor_of_a_socket_file_is_dialled(tmp_path):
    """``/proc/<pid>/fd/N`` of an O_PATH descriptor reaches the listener, even when its file was unlinked."""
    path = tmp_path / "server.sock"
    with address.listen(address.parse(f"unix://{path}"), 0o600):
        handle = os.open(path, os.O_PATH)
        path.unlink()
        assert dial(f"unix:///proc/{os.getpid()}/fd/{handle}") == socket.AF_UNIX
        os.close(handle)


def test_an_abstract_socket_is_listened_on_and_dialled():
    """A socket without a file."""
    url = f"unix://@nsmesh-test-{os.getpid()}-{time.monotonic_ns()}"
    with address.listen(address.parse(url), 0o600):
        assert dial(url) == socket.AF_UNIX
        with pytest.raises(Conflict):
            address.listen(address.parse(url), 0o600)


def test_a_stale_file_is_replaced_and_a_live_one_is_not(tmp_path):
    """A dead listener's file makes way; a live listener, or a file that is no socket, is an error."""
    where = address.parse(f"unix://{tmp_path}/server.sock")
    address.listen(where, 0o600).close()
    with address.listen(where, 0o640):
        assert (tmp_path / "server.sock").stat().st_mode & 0o777 == 0o640
        with pytest.raises(Conflict, match="a live server"):
            address.listen(where, 0o600)
    (tmp_path / "file").write_text("x")
    with pytest.raises(Conflict, match="no socket"):
        address.listen(address.parse(f"unix://{tmp_path}/file"), 0o600)
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_that_is_missing_is_said(tmp_path):
    """Listening in a folder that does not exist fails with the address in the text."""
    with pytest.raises(Unavailable, match=r"none/server\.sock"):
        address.listen(address.parse(f"unix://{tmp_path}/none/server.sock"), 0o600)


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "tcp://localhost:0", "tcp://[::1]:0", "tcp://:0"])
def test_tcp_listeners_tell_their_port(url):
    """Port 0 becomes the real one in the URL, and that URL can be dialled."""
    try:
        sock = address.listen(address.parse(url), 0)
    except Unavailable:
        pytest.skip("this machine has no such address")
    with sock:
        real = address.listening_url(address.parse(url), sock)
        assert not real.endswith(":0")
        dial(real)
        with pytest.raises(Conflict, match="in use"):
            address.listen(address.parse(real), 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect everywhere")
def test_a_forbidden_socket_is_unauthorized(tmp_path):
    """No permission is no outage."""
    with address.listen(address.parse(f"unix://{tmp_path}/server.sock"), 0), pytest.raises(Unauthorized):
        dial(f"unix://{tmp_path}/server.sock")
