"""For tests of whole meshes: a mesh of its own for each test, real processes, and nothing left behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from nsmesh.cli.main import main
from nsmesh.datapath import netns

MARK = "MESH_LAB"
"""Variable that every process of a lab has, with the session's own value."""
NSM = [sys.executable, "-m", "nsmesh.cli.main"]
BOX = """
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: box
  annotations:
    networkservicemesh.io: kernel://ping/nsm-1
spec:
  command: [sleep, infinity]
"""
"""A workload with a wire to the endpoint that :func:`responder` makes."""


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    def ok(self) -> Self:
        assert self.code == 0, f"exit code {self.code}\n{self.out}\n{self.err}"
        return self

    def fails(self, *pieces: str, code: int = 1) -> Self:
        """Expect an exit code and pieces of the error, in order; never a traceback."""
        assert self.code == code, f"exit code {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err, self.err
        rest = self.err
        for piece in pieces:
            assert piece in rest, f"{piece!r} is not in\n{self.err}"
            rest = rest.partition(piece)[2]
        return self

    def json(self) -> Any:
        return json.loads(self.out)


def nsm(*arguments: str, given: str | bytes = b"") -> Done:
    """Run a command in this process: the whole way from arguments to output, without the start of Python."""
    out, err = io.StringIO(), io.StringIO()
    raw = given.encode() if isinstance(given, str) else given
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(raw))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(list(arguments))
            code: Any = 0
    except SystemExit as error:
        code = error.code
    finally:
        sys.stdin = before
    return Done(int(code or 0), out.getvalue(), err.getvalue())


def nsm_process(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start a command as a process of its own."""
    pipe = subprocess.PIPE
    return subprocess.Popen([*NSM, *arguments], stdout=pipe, stderr=pipe, text=True, **options)


def finish(process: subprocess.Popen[str], timeout: float = 30) -> Done:
    out, err = process.communicate(timeout=timeout)
    return Done(process.returncode, out, err)


class Lab:
    """One mesh: its names and directories, what is done to it, and its end."""

    def __init__(self, label: str = "t") -> None:
        self.mesh = f"{label}{os.getpid()}{uuid.uuid4().hex[:4]}"
        self.root = Path(tempfile.mkdtemp(prefix="nsm-", dir="/tmp"))
        self.run, self.state = self.root / "run", self.root / "state"
        self.stack = contextlib.ExitStack()

    @property
    def options(self) -> list[str]:
        return ["--mesh", self.mesh, "--run-dir", str(self.run), "--state-dir", str(self.state)]

    def nsm(self, *arguments: str, given: str | bytes = b"") -> Done:
        return nsm(*self.options, *arguments, given=given)

    def process(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return nsm_process(*self.options, *arguments, **options)

    def up(self, *arguments: str) -> Self:
        self.nsm("up", *arguments).ok()
        return self

    def status(self) -> Any:
        return self.nsm("status", "-o", "json").ok().json()

    def get(self, kind: str, *arguments: str) -> list[Any]:
        return self.nsm("get", kind, *arguments, "-o", "json").ok().json()

    def row(self, kind: str, name: str) -> Any:
        rows = self.get(kind, name)
        assert len(rows) == 1, rows
        return rows[0]

    def apply(self, text: str, *arguments: str) -> Done:
        return self.nsm("apply", "-f", "-", *arguments, given=text)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(text)
        return path

    def namespace(self, label: str) -> str:
        """Make a namespace of the user's; it ends with the lab at the latest."""
        name = f"{self.mesh}-{label}"
        netns.create(name)
        self.stack.callback(netns.delete, name)
        return name

    def spaces(self) -> list[str]:
        """Return the names of the namespaces that the mesh has made, without the mesh's own."""
        found = Path(netns.RUN_NETNS).glob(f"{self.mesh}.*")
        return sorted(path.name.removeprefix(f"{self.mesh}.") for path in found)

    def links(self, namespace: str) -> list[str]:
        """Return the names of the interfaces of a namespace, without the loopback."""
        done = subprocess.run(["ip", "-n", namespace, "-j", "link"], capture_output=True, check=True)
        return sorted(link["ifname"] for link in json.loads(done.stdout) if link["ifname"] != "lo")

    def start(self, *argv: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a process of the user's; it ends with the lab at the latest."""
        process = subprocess.Popen(argv, **options)
        self.stack.callback(end, process)
        return process

    def resident(self) -> subprocess.Popen[bytes]:
        """Start a process in a network namespace of its own that has no name."""
        process = self.start("unshare", "--net", "sleep", "300")
        home = netns.identity("/proc/self/ns/net")
        until(lambda: netns.identity(f"/proc/{process.pid}/ns/net") != home)
        return process

    def daemon(self) -> int:
        return int((self.run / "lock").read_text().split()[0])

    def kill_daemon(self) -> None:
        """Kill the daemon as a crash would, and wait until it is gone."""
        pid = self.daemon()
        os.kill(pid, signal.SIGKILL)
        until(lambda: is_gone(pid))

    def left(self) -> list[str]:
        """Return what is left of this mesh on the machine."""
        out = [f"namespace {name}" for name in self.spaces()]
        out += [f"process {pid} {line}" for pid, line in processes() if str(self.root) in line]
        out += [
            f"mount {line}"
            for line in Path("/proc/mounts").read_text().splitlines()
            if str(self.root) in line
        ]
        return out

    def close(self) -> None:
        """End everything, then say what should not have been there."""
        try:
            if self.run.exists():
                done = nsm(*self.options, "down", "--purge")
                if done.code:
                    self._force()
                    done.ok()
            until(lambda: not self.left(), 5, lambda: f"left behind: {self.left()}")
        finally:
            self._force()
            self.stack.close()
            shutil.rmtree(self.root, ignore_errors=True)

    def _force(self) -> None:
        for pid, line in processes():
            if str(self.root) in line:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for name in [path.name for path in Path(netns.RUN_NETNS).glob(f"{self.mesh}.*")]:
            netns.delete(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def processes() -> list[tuple[int, str]]:
    """Return pid and command line (with more to know it by) of this session's processes, but our own."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            if mark not in environment:
                continue
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            mine = [item.decode(errors="replace") for item in environment if item.startswith(b"NSM_")]
            found.append((int(entry.name), f"{words} {(entry / 'cwd').readlink()} {' '.join(mine)}"))
        except OSError:
            continue
    return found


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in {"Z", "X"}


def end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()


def until(
    condition: Callable[[], Any], seconds: float = 10, why: Callable[[], str] = lambda: "it did not happen"
) -> Any:
    """Wait for the kernel or another process; return what the condition gave."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, why()
        time.sleep(0.02)
    return found


def ping(namespace: str, address: str, count: int = 1, wait: float = 2) -> bool:
    argv = ["ip", "netns", "exec", namespace, "ping", "-n", "-c", str(count), "-i", "0.1", "-W", str(wait)]
    return subprocess.run([*argv, address], capture_output=True, check=False).returncode == 0


def ping_pid(pid: int, address: str) -> bool:
    argv = ["nsenter", "--net", "--target", str(pid), "ping", "-n", "-c", "1", "-W", "2", address]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


RESPONDER = """
apiVersion: nsmesh/v1
kind: Endpoint
metadata:
  name: {name}
spec:
  type: icmp-responder
  services: [{service}]
  labels: {{app: {name}}}
  options:
    cidr_prefix: {prefix}
"""

FUNCTIONS = '''
"""Endpoints for tests."""
import asyncio
from nsmesh.core.errors import Refused
from nsmesh.endpoints.base import Endpoint


class Strict(Endpoint):
    async def granted(self, connection):
        raise Refused("the bar is closed for guests without a tie", remedy="put on a tie")


class Slow(Endpoint):
    async def granted(self, connection):
        await asyncio.sleep(1)
'''
ENDPOINT = """
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {{name: {name}}}
spec:
  type: ./functions.py:{cls}
  services: [{name}]
  options: {{cidr_prefix: {prefix}}}
"""

PACKETS = """
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {name: packets}
spec:
  type: icmp-responder
  services: [shared-memory]
  options: {cidr_prefix: 172.30.3.0/24, mechanism: memif}
"""
"""An endpoint with a memif socket, which has the first address of each two: 172.30.3.0, 172.30.3.2..."""
_CLIENT = """
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: box
  annotations: {{networkservicemesh.io: "{wishes}"}}
spec: {{command: [sleep, infinity]}}
"""


def responder(name: str = "responder", service: str = "ping", prefix: str = "172.30.0.0/24") -> str:
    return RESPONDER.format(name=name, service=service, prefix=prefix)


def client_box(count: int = 1) -> str:
    """Return a client with so many wires to :data:`PACKETS`."""
    return _CLIENT.format(wishes=",".join(f"kernel://shared-memory/nsm-{at + 1}" for at in range(count)))


def documents(*texts: str) -> str:
    return "\n---\n".join(texts)
