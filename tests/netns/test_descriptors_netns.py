"""Descriptors and real namespaces: wires between places that no name leads to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from datapath_lab import simple

from nsmesh.datapath import netns
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.elements.cross_connect import namespace_identity

pytestmark = pytest.mark.root

NSM = Path(sys.executable).with_name("nsm")


class Processes(contextlib.ExitStack):
    """Programs with a log each; they end with the ``with`` block."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="fd-")))

    def url(self, name: str) -> str:
        return f"unix://{self.folder}/{name}.sock"

    def start(self, name: str, *argv: str, apart: bool = False, **environment: str) -> subprocess.Popen:
        """Start ``nsm run ...``; ``apart``: in a namespace of its own that has no name."""
        command = [str(NSM), "run", *argv]
        if apart:
            command = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
        log = self.enter_context((self.folder / f"{name}.log").open("wb"))
        own = {"PATH": os.environ["PATH"], "NSM_NAME": name, "NSM_LOG_LEVEL": "DEBUG"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=own | environment)
        self.callback(self._end, process)
        return process

    @staticmethod
    def _end(process: subprocess.Popen) -> None:
        process.kill()
        process.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def until(self, name: str, text: str, seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while not re.search(text, self.log(name)):
            assert time.monotonic() < end, f"no {text!r} in the log of {name}:\n{self.log(name)}"
            time.sleep(0.02)


@pytest.fixture
def mesh():
    """Registry, manager and forwarder, each a process; the workloads are the tests' own."""
    with Processes() as run:
        run.start("registry", "registry-memory", NSM_LISTEN_ON=run.url("registry"))
        run.start("nsmgr", "nsmgr", NSM_LISTEN_ON=run.url("nsmgr"), NSM_REGISTRY_URL=run.url("registry"))
        run.start(
            "forwarder", "forwarder", NSM_LISTEN_ON=run.url("forwarder"), NSM_CONNECT_TO=run.url("nsmgr")
        )
        run.until("forwarder", "forwarder ready")
        yield run


def inside(process: subprocess.Popen, *argv: str) -> subprocess.CompletedProcess:
    command = ["nsenter", "-t", str(process.pid), "--net", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_a_wire_between_processes_that_nobody_can_name(mesh):
    """Client and endpoint live in namespaces without names, and the endpoint's socket has lost its own.

    The wire works, stays as it is, and goes away with its client: only descriptors led anywhere.
    """
    private = mesh.folder / "private"
    private.mkdir()
    nse = mesh.start(
        "nse",
        "nse",
        "icmp-responder",
        apart=True,
        TMPDIR=str(private),
        NSM_CONNECT_TO=mesh.url("nsmgr"),
        NSM_SERVICE_NAMES="s",
        NSM_CIDR_PREFIX="10.9.0.0/24",
    )
    mesh.until("nse", '"name": "nse".*"event": "registered"')
    for left in private.iterdir():
        shutil.rmtree(left)
    nsc = mesh.start(
        "nsc",
        "nsc",
        apart=True,
        NSM_CONNECT_TO=mesh.url("nsmgr"),
        NSM_NETWORK_SERVICES="kernel://s/nsm-1",
    )
    mesh.until("nsc", "all wires are up")
    ping = inside(nsc, "ping", "-c1", "-W1", "10.9.0.0")
    assert ping.returncode == 0, ping.stdout + ping.stderr
    assert "nsm-1" in inside(nsc, "ip", "-br", "link").stdout
    nsc.send_signal(signal.SIGTERM)
    nsc.wait(10)
    end = time.monotonic() + 20
    while len(inside(nse, "ip", "-br", "link").stdout.splitlines()) > 1:
        assert time.monotonic() < end, "the wire is still there"
        time.sleep(0.05)


@contextlib.contextmanager
def unnamed(count: int = 1):
    """Yield processes that live in fresh namespaces without names."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            process = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            stack.callback(process.stdout.close)
            process.stdout.readline()
            found.append(process)
        yield found


def held(stack: contextlib.ExitStack, process: subprocess.Popen) -> str:
    """Open a process's namespace as a descriptor that was received is: ``O_PATH``; return its path."""
    fd = os.open(f"/proc/{process.pid}/ns/net", os.O_PATH | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return f"/proc/{os.getpid()}/fd/{fd}"


def test_the_driver_knows_a_namespace_by_any_descriptor():
    """The same wire through other descriptors of the same namespaces is the same wire: nothing changes."""

    async def main():
        with contextlib.ExitStack() as stack:
            a, b = stack.enter_context(unnamed(2))
            driver = LinuxDatapath(owner=f"test{os.getpid()}")
            try:
                first = await driver.apply(simple(held(stack, a), held(stack, b)))
                again = await driver.apply(simple(held(stack, a), held(stack, b)))
                plain = await driver.apply(simple(netns.of_pid(a.pid), held(stack, b)))
                assert (first.outcome, again.outcome, plain.outcome) == ("created", "unchanged", "unchanged")
                assert inside(a, "ping", "-c1", "-W1", "10.0.1.2").returncode == 0
                assert namespace_identity(held(stack, a)) == namespace_identity(held(stack, a))
                assert namespace_identity(held(stack, a)) != namespace_identity(held(stack, b))
                await driver.remove("w1")
                await driver.drain()
                assert len(inside(a, "ip", "-br", "link").stdout.splitlines()) == 1
            finally:
                await driver.aclose()

    asyncio.run(main())


def test_a_namespace_lives_on_in_its_descriptor():
    """When the last process of a namespace has died, its wire can still be taken away by the descriptor."""

    async def main():
        with contextlib.ExitStack() as stack:
            (b,) = stack.enter_context(unnamed())
            with unnamed() as (a,):
                path = held(stack, a)
                driver = LinuxDatapath(owner=f"test{os.getpid()}")
                await driver.apply(simple(path, held(stack, b)))
            await driver.remove("w1")
            await driver.drain()
            assert len(inside(b, "ip", "-br", "link").stdout.splitlines()) == 1
            await driver.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["file", "pipe", "socket"])
def test_the_driver_is_not_held_up_by_what_is_no_namespace(kind, tmp_path):
    """A path to something else is an error at once, also where opening it would wait for somebody."""
    path = tmp_path / "x"
    if kind == "file":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))

    async def main():
        with unnamed() as (a,):
            driver = LinuxDatapath(owner=f"test{os.getpid()}")
            try:
                with pytest.raises(Exception, match="network namespace"):
                    await driver.apply(simple(str(path), netns.of_pid(a.pid)))
            finally:
                await driver.aclose()

    asyncio.run(asyncio.wait_for(main(), 5))
