"""Descriptors of strangers: told apart, numbered and closed without waiting for anybody."""

import array
import contextlib
import os
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from rpc_helpers import open_descriptors

from nsmesh.rpc import foreign


@contextlib.contextmanager
def lingering():
    """Give a tcp socket whose close waits for a minute: its peer reads nothing, and much is to be read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            near.send(bytes(1 << 16))
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    yield near
    far.close()


def send(sock, *numbers):
    rights = array.array("i", numbers)
    sock.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def settled(before):
    """Wait until no more descriptors are open than before."""
    limit = time.monotonic() + 20
    while open_descriptors() > before:
        assert time.monotonic() < limit
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("make", "harmless"),
    [
        (lambda: os.open("/", os.O_PATH), True),
        (lambda: os.open("/proc/self/ns/net", os.O_PATH), True),
        (lambda: os.open("/proc/self/ns/net", os.O_RDONLY), True),
        (lambda: os.open("/proc/self/ns/mnt", os.O_RDONLY), False),
        (lambda: os.open("/", os.O_RDONLY), False),
        (lambda: socket.socket().detach(), False),
        (lambda: os.memfd_create("net:[4026531833]"), False),
    ],
)
def test_kinds_are_told_apart(make, harmless):
    """Only what was opened by O_PATH, and network namespaces, can be kept without a risk."""
    fd = make()
    try:
        assert foreign.harmless(fd) is harmless
    finally:
        os.close(fd)


def test_inodes_are_numbered_as_fstat_does():
    """Device and inode are those that peers put into their URLs."""
    for path in ("/", "/proc/self/ns/net", __file__):
        fd = os.open(path, os.O_PATH)
        found = os.fstat(fd)
        assert foreign.inode_of(fd) == (found.st_dev, found.st_ino)
        os.close(fd)
        with pytest.raises(OSError, match="Bad file"):
            foreign.inode_of(fd)


def test_a_lingering_socket_holds_nobody_up():
    """What would wait for a minute is closed within milliseconds, for the caller and for good."""
    before = open_descriptors()
    with lingering() as sock:
        began = time.monotonic()
        foreign.discard(sock.detach())
        assert time.monotonic() - began < 20  # it would be 60
    settled(before)


def test_what_nobody_has_read_holds_nobody_up():
    """A socket is closed at once, also with such descriptors unread in it, as many as there may be."""
    before = open_descriptors()
    with lingering() as sock:
        near, far = socket.socketpair()
        near.settimeout(0)
        copies = [os.dup(sock.fileno()) for _ in range(foreign.AT_ONCE - 1)]
        send(far, *copies, sock.fileno())
        for copy in copies:
            os.close(copy)
        sock.close()
        began = time.monotonic()
        foreign.close_socket(near)
        assert time.monotonic() - began < 20  # it would be 60
        with pytest.raises(BrokenPipeError):
            far.send(b"more")
        far.close()
    settled(before)


def test_threads_end_with_their_work():
    """What was closed leaves no thread behind."""
    before = open_descriptors()
    for _ in range(50):
        read, write = os.pipe()
        foreign.discard(read)
        foreign.discard(write)
    settled(before)
    limit = time.monotonic() + 20
    while any(thread.name == "close descriptors" for thread in threading.enumerate()):
        assert time.monotonic() < limit
        time.sleep(0.001)


def test_other_ancillary_data_is_no_descriptor():
    """Only SCM_RIGHTS holds descriptors; a torn one is cut."""
    body = array.array("i", [7, 8]).tobytes()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, body + b"\1")
    assert foreign.numbers_in([(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, body), rights]) == [7, 8]
    assert Path("/proc/self/fd").exists()
