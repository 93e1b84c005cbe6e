"""Descriptors by the thousand, and of every wrong kind, sent to a manager that serves others meanwhile."""

import array
import asyncio
import contextlib
import os
import socket
import struct
import time

import pytest
from attacks import Raw, spiffe

from nsmesh.core.errors import MeshError
from nsmesh.model import methods

RIGHTS = (socket.SOL_SOCKET, socket.SCM_RIGHTS)


def send(sock, data, numbers):
    """Send bytes with descriptors, as a peer does, below TLS."""
    sock.sendmsg([data], [(*RIGHTS, array.array("i", numbers))])


@contextlib.contextmanager
def lingering():
    """Give a tcp socket whose close waits for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.settimeout(0)
    with contextlib.suppress(BlockingIOError):
        while True:
            near.send(bytes(1 << 16))
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    with near, far:
        yield near


async def settled(mesh, most, seconds=30.0):
    """Wait until the roles have no more than so many descriptors open."""
    limit = time.monotonic() + seconds
    while (found := mesh.descriptors()) > most:
        assert time.monotonic() < limit, found
        await asyncio.sleep(0.02)


def test_a_flood_is_bounded(mesh, mallory, tmp_path):
    """Of thousands of descriptors over several connections no more is kept than one may send unasked."""
    files = []
    for number in range(500):
        (tmp_path / str(number)).touch()
        files.append(os.open(tmp_path / str(number), os.O_PATH))

    async def main():
        before = mesh.descriptors()
        clients = [await mallory.dial(mesh.url("nsmgr")) for _ in range(4)]
        try:
            for client in clients:
                for file in files:
                    client.send_fd(f"/proc/self/fd/{file}")
                for _ in range(20):  # one descriptor goes with a byte
                    await client.unary(methods.HEALTH_CHECK, b"")
            assert mesh.descriptors() <= before + 500 + 20  # connections, the bystander's too
            mesh.heard("too many descriptors unasked", peer=spiffe(mallory.name))
        finally:
            for client in clients:
                await client.aclose(0)

    try:
        asyncio.run(main())
    finally:
        for file in files:
            os.close(file)


def pipe():
    read, write = os.pipe()
    os.close(write)
    return read


WRONG = {
    "a file that is open": lambda: os.open("/etc/hostname", os.O_RDONLY),
    "a pipe": pipe,
    "a socket": lambda: socket.socket().detach(),
    "memory": lambda: os.memfd_create("net:[1]"),
    "a device": lambda: os.open("/dev/zero", os.O_RDWR),
    "another namespace": lambda: os.open("/proc/self/ns/mnt", os.O_RDONLY),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_descriptor_of_a_wrong_kind_ends_its_connection(mesh, mallory, kind):
    """It is closed, its sender is told off in the log, and loses its connection."""

    async def main():
        before = mesh.descriptors()
        raw = Raw(mesh.url("nsmgr"), mallory.identity.client_context())
        async with raw:
            number = WRONG[kind]()
            sock = raw.writer.get_extra_info("socket")
            send(socket.socket(fileno=os.dup(sock.fileno())), b"\x17", [number])
            os.close(number)
            await raw.end()
        mesh.heard("neither a path's nor a network namespace's", peer=spiffe(mallory.name))
        await settled(mesh, before)

    asyncio.run(main())


def test_descriptors_that_linger_hold_nobody_up(mesh, mallory):
    """Sockets whose close would wait for a minute are sent by strangers and insiders, read and unread."""

    async def main():
        before = mesh.descriptors()
        path = mesh.url("nsmgr").removeprefix("unix://")
        for unread in (False, True):
            for _ in range(5):
                with lingering() as trap, socket.socket(socket.AF_UNIX) as stranger:
                    stranger.connect(path)
                    copies = [os.dup(trap.fileno()) for _ in range(100)]
                    if unread:  # two messages and a goodbye: the second may never be read
                        send(stranger, b"\x16", copies[:50])
                        send(stranger, b"\x16", copies[50:])
                    else:
                        send(stranger, b"\x16", copies)
                        await asyncio.sleep(0.02)
                    for copy in copies:
                        os.close(copy)
        with lingering() as trap:
            raw = Raw(mesh.url("nsmgr"), mallory.identity.client_context())
            with contextlib.suppress(MeshError, OSError):
                async with raw:
                    sock = raw.writer.get_extra_info("socket")
                    send(socket.socket(fileno=os.dup(sock.fileno())), b"\x17", [trap.fileno()])
                    trap.close()
                    await raw.end()
        await settled(mesh, before)

    asyncio.run(main())
