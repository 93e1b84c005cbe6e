"""The socket that says that all wires are up, and the program of the image that waits for it."""

import runpy
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from nsmesh.chains.up_socket import UpSocket
from nsmesh.core.errors import Invalid

ROOTFS = Path(__file__).parents[3] / "deploy/image/rootfs.py"


@pytest.fixture
def name():
    return f"@nsm-test-{uuid.uuid4().hex}"


def reached(name):
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex("\0" + name[1:]) == 0


def test_it_is_reached_from_when_it_listens_until_it_closes(name):
    """Not before; and again by a client that comes after."""
    for _ in range(2):
        one = UpSocket(name)
        assert not reached(name)
        one.listen()
        one.listen()
        assert reached(name)
        assert reached(name)
        one.close()
        assert not reached(name)


def test_without_a_name_nothing_listens():
    """As in a client that nobody waits for."""
    one = UpSocket("")
    one.listen()
    assert one._socket is None
    one.close()


@pytest.mark.parametrize("wrong", ["nsm-up", "/run/nsm-up", "@", "@" + "x" * 108])
def test_a_name_that_is_none_is_refused(wrong):
    """The variable is named."""
    with pytest.raises(Invalid, match="NSM_UP_SOCKET"):
        UpSocket(wrong)


def test_a_name_that_is_taken_is_told(name):
    """The wires are up all the same."""
    first = UpSocket(name)
    first.listen()
    with capture_logs() as logs:
        UpSocket(name).listen()
    assert [one["event"] for one in logs] == ["nobody is told that all wires are up"]
    first.close()


@pytest.fixture
def program(tmp_path):
    """Give the program of the image that waits, run by this Python without any package."""
    file = tmp_path / "nsm-up"
    file.write_text(runpy.run_path(str(ROOTFS))["WAITER"].format(python=sys.executable))
    file.chmod(0o755)
    return file


def test_the_program_of_the_image_ends_when_it_listens(name, program):
    """It waits as long as that takes."""
    with subprocess.Popen([program, name, "60"]) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)
        one = UpSocket(name)
        one.listen()
        assert waiting.wait(30) == 0
        one.close()


def test_the_program_of_the_image_fails_after_its_time(name, program):
    """In words, which the kubelet shows."""
    done = subprocess.run([program, name, "0.1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "not all wires are up\n")
