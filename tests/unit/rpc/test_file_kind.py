"""What a descriptor leads to is told without opening pipes and devices."""

import os
import socket

import pytest

from nsmesh.rpc.file_kind import NAMESPACE, SOCKET, kind_of


def kind(path):
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return kind_of(fd)
    finally:
        os.close(fd)


def test_a_network_namespace():
    """By O_PATH or opened: it is one."""
    assert kind("/proc/thread-self/ns/net") == NAMESPACE
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    assert kind_of(fd) == NAMESPACE
    os.close(fd)


@pytest.mark.parametrize("name", ["mnt", "pid", "uts", "user"])
def test_another_namespace(name):
    """Those of mounts, processes, names and users are none of a network."""
    assert kind(f"/proc/self/ns/{name}") == "another namespace"


def test_files_of_all_kinds(tmp_path):
    """Each is called what it is; a pipe that nobody writes to does not hold us up."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        assert kind(tmp_path / "socket") == SOCKET
    assert kind(tmp_path / "file") == "a regular file"
    assert kind(tmp_path / "pipe") == "a pipe"
    assert kind(tmp_path) == "a directory"
    assert kind("/dev/null") == "a character device"
