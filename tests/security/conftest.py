"""A mesh under attack, and a bystander who must not notice."""

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path

import pytest
from attacks import Insider, connection
from security_roles import DOMAIN

from nsmesh.core.errors import MeshError
from nsmesh.model import methods
from nsmesh.security.ca import CertificateAuthority

PATIENCE = 2.0
"""Seconds within which a bystander must be answered, whatever goes on; usually it takes some milliseconds.

Time in which the machine gave the mesh or the bystander no processor does not count: others may be at work.
"""
AT_LAST = 30.0
"""Seconds after which something has not happened at all, on the busiest machine."""


def starved(task):
    """Return the seconds in which a task was ready and had to wait for a processor; 0 where nobody counts."""
    try:
        return int(Path(f"/proc/{task}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


class Mesh:
    """The roles, in a process of their own; their log; their CA."""

    def __init__(self, folder, process, log, urls):
        self.folder = folder
        self.process = process
        self.log = log
        self.ca = CertificateAuthority.open(folder / "ca", DOMAIN)
        self.urls = urls
        self._heard = 0

    def url(self, role):
        return self.urls[role]

    def insider(self, name):
        return Insider(self.ca, name)

    def mark(self):
        """Forget what the log has said so far."""
        self._heard = self.log.stat().st_size

    def said(self):
        """Return the lines of the log since ``mark``."""
        with self.log.open() as lines:
            lines.seek(self._heard)
            whole = lines.read().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def heard(self, pattern, seconds=AT_LAST, **fields):
        """Wait for a line whose reason matches, and has these fields; return it."""
        limit = time.monotonic() + seconds
        while True:
            for line in self.said():
                matches = re.search(pattern, str(line.get("reason", "")) + str(line.get("event", "")))
                if matches and all(str(line.get(name)) == value for name, value in fields.items()):
                    return line
            assert time.monotonic() < limit, f"no line says {pattern}: {self.said()}"
            time.sleep(0.01)

    def faults(self):
        """Return the lines that tell of faults of our own."""
        return [line for line in self.said() if "exception" in line or line.get("level") == "error"]

    def descriptors(self):
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def memory(self):
        """Return the resident memory of the roles, bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) << 10


@pytest.fixture(scope="session")
def roles(tmp_path_factory):
    """Run the roles of a mesh."""
    folder = tmp_path_factory.mktemp("attacked")
    CertificateAuthority.open(folder / "ca", DOMAIN)
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("security_roles.py"), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n", (folder / "roles.log").read_text()
        urls = {name: f"unix://{folder}/{name}.sock" for name in ("registry", "nsmgr", "forwarder", "nse")}
        yield Mesh(folder, process, folder / "roles.log", urls)
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Bystander(threading.Thread):
    """A client of good will, with a wire that it keeps refreshing, in a thread of its own."""

    def __init__(self, mesh, insider):
        super().__init__(name="bystander")
        self.url = mesh.url("nsmgr")
        self.server = mesh.process.pid
        self.who = insider
        self.slowest = 0.0
        self.answers = 0
        self.troubles = []
        self.over = threading.Event()
        self.ready = threading.Event()

    def run(self):
        try:
            asyncio.run(self._work())
        except Exception as error:  # noqa: BLE001 - the fixture tells it
            self.troubles.append(repr(error))
        finally:
            self.ready.set()

    async def _work(self):
        client = await self.who.dial(self.url)
        wire = connection(f"{self.who.name}-0", self.who.name)
        loop = asyncio.get_running_loop()
        tasks = (self.server, f"self/task/{threading.get_native_id()}")
        try:
            while not self.over.is_set():
                began, waited = loop.time(), sum(map(starved, tasks))
                deadline = began + AT_LAST
                try:
                    await client.unary(methods.HEALTH_CHECK, b"", deadline=deadline)
                    wire = await self.who.request(self.url, wire, seconds=AT_LAST)
                except MeshError as error:
                    self.troubles.append(str(error))
                else:
                    self.answers += 1
                took = loop.time() - began - (sum(map(starved, tasks)) - waited)
                self.slowest = max(self.slowest, took)
                self.ready.set()
                await asyncio.sleep(0.02)
            await self.who.close(self.url, wire)
        finally:
            await client.aclose(0)


@pytest.fixture
def mesh(roles, request):
    """Give the mesh; afterwards it lives, has no fault to tell, and a bystander was served all the time."""
    roles.mark()
    name = re.sub(r"[^a-z0-9]+", "-", f"by-{request.node.name}".lower())[:60]
    bystander = Bystander(roles, roles.insider(name))
    bystander.start()
    assert bystander.ready.wait(AT_LAST)
    yield roles
    before = bystander.answers
    limit = time.monotonic() + AT_LAST
    while bystander.answers < before + 2 and not bystander.troubles and time.monotonic() < limit:
        time.sleep(0.005)
    bystander.over.set()
    bystander.join(AT_LAST)
    assert not bystander.troubles
    assert bystander.slowest < PATIENCE
    assert roles.process.poll() is None
    assert not roles.faults()


_numbers = count()


@pytest.fixture
def mallory(roles):
    """Give an insider: a workload with a good SVID, and a name of its own in each test."""
    return roles.insider(f"mallory-{next(_numbers)}")
