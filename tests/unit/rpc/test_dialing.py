"""Dialling: what happens where nobody listens, or nobody answers."""

import asyncio
import os
import socket
import time

import pytest
from rpc_helpers import dial

from nsmesh.core.errors import TimedOut, Unauthorized, Unavailable
from nsmesh.rpc import dialing
from nsmesh.rpc.address import parse
from nsmesh.rpc.listening import listen


def test_a_missing_socket_is_unavailable_at_once(tmp_path):
    """No file, no listener: said at once, with what to do."""
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"no such socket.*start the server"):
        dial(f"unix://{tmp_path}/none.sock", timeout=30)
    assert time.monotonic() - began < 15


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
                with await dialing.dial(parse(f"unix://{tmp_path}/full.sock"), 2.0):
                    pass

    asyncio.run(main())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may connect everywhere")
def test_a_forbidden_socket_is_unauthorized(tmp_path):
    """No permission is no outage."""
    with listen(parse(f"unix://{tmp_path}/server.sock"), 0), pytest.raises(Unauthorized):
        dial(f"unix://{tmp_path}/server.sock")
