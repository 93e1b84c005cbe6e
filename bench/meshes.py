"""Meshes under measurement: the same Request through one process or several, with and without identities."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from driver import PREFIX, SERVICE, Config
from processes import Memory, Process, command, cpu_of, kernel_of

from nsmesh.datapath import netns

HERE = Path(__file__).parent
ROLES = ("client", "nsmgr", "forwarder", "nse", "registry")
SETTLED = 30.0
"""Seconds within which the interfaces of closed connections must be gone."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a mesh is put together.

    ``apart``: every role is a process of its own; ``endpoint_apart``: the endpoint alone is;
    ``client_apart``: the client alone is. ``tls``: mTLS, tokens and policies between processes. ``kernel``:
    real wires.
    """

    name: str
    apart: bool = False
    endpoint_apart: bool = False
    client_apart: bool = False
    tls: bool = False
    kernel: bool = True


APART_TLS = Form("four processes, mTLS", apart=True, tls=True)
APART = Form("four processes", apart=True)
UP = Form("as nsm up makes it", endpoint_apart=True, tls=True)
ONE = Form("one process")
DRAWN = Form("one process, no kernel", kernel=False)
SERVED = Form("client and mesh, mTLS, no kernel", client_apart=True, tls=True, kernel=False)
FORMS = (APART_TLS, APART, UP, ONE, DRAWN)


@dataclass(frozen=True, slots=True)
class Phase:
    """What a number of equal operations took: seconds; CPU time by role, and what of it the kernel had."""

    count: int
    wall: list[float]
    took: float
    cpu: dict[str, float]
    kernel: float = 0.0

    @property
    def cpu_each(self) -> float:
        """CPU time of all roles for one operation."""
        return sum(self.cpu.values()) / max(self.count, 1)


class Mesh:
    """A running mesh. ``driver`` does what it is told; ``processes`` by role are all that take part."""

    def __init__(self, form: Form, spaces: Sequence[str], far: str, processes: dict[str, Process]) -> None:
        self.form = form
        self.spaces = spaces
        self.far = far
        self.processes = processes
        self._driver = processes["client" if "client" in processes else "one process"]
        self._next = 1

    def fresh(self, count: int) -> range:
        """Return numbers for connections that were never used."""
        first, self._next = self._next, self._next + count
        return range(first, self._next)

    def ask(self, **order: Any) -> dict[str, Any]:
        """Send the driver a command, return its answer; raises SystemExit with its log when it fails."""
        stdin, stdout = self._driver.popen.stdin, self._driver.popen.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(BrokenPipeError):
            if order:
                stdin.write(json.dumps(order).encode() + b"\n")
                stdin.flush()
        line = stdout.readline()
        if not line:
            others = "\n".join(f"--- {one.name}\n{one.tail()}" for one in self.processes.values())
            raise SystemExit(f"{self.form.name} failed\n{others}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def do(self, verb: str, numbers: range, in_flight: int = 1) -> Phase:
        """Do request, refresh or close to each of ``numbers``; a close waits until the kernel is done."""
        before, kernel = self.cpu(), self._kernel()
        answer = self.ask(verb=verb, first=numbers.start, last=numbers.stop, in_flight=in_flight)
        if verb == "close":
            self.settle()
        after = self.cpu()
        cpu = {role: after[role] - before[role] for role in before}
        return Phase(len(numbers), answer["wall"], answer["took"], cpu, self._kernel() - kernel)

    def _kernel(self) -> float:
        return sum(kernel_of(process.pid) for process in self.processes.values())

    def cpu(self) -> dict[str, float]:
        """Return the CPU time so far, by role."""
        return {role: cpu_of(process.pid) for role, process in self.processes.items()}

    def memory(self) -> dict[str, Memory]:
        """Return what each process holds."""
        return {role: process.memory() for role, process in self.processes.items()}

    def interfaces(self) -> int:
        """Return how many interfaces there are in all its namespaces."""
        return sum(
            netns.call_in(path, lambda: len(socket.if_nameindex())) for path in (*self.spaces, self.far)
        )

    def settle(self) -> None:
        """Wait until the interfaces of all closed connections are gone (a loopback each stays)."""
        end = time.monotonic() + SETTLED
        while self.form.kernel and self.interfaces() > len(self.spaces) + 1:
            if time.monotonic() > end:
                raise SystemExit(f"{self.form.name}: interfaces are left {SETTLED:g} s after their Close")
            time.sleep(0.005)


@contextmanager
def running(form: Form, spaces: Sequence[str], far: str, profiles: Path | None = None) -> Iterator[Mesh]:
    """Run a mesh while the block runs. ``profiles``: folder into which each role writes a cProfile."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        api = f"unix://{folder}/workload-api.sock" if form.tls else ""
        config = Config("", str(folder), tuple(spaces), far, form.kernel, not form.endpoint_apart, api)
        starter = Starter(config, folder, profiles, stack)
        processes: dict[str, Process] = {}
        if form.tls:
            starter.ready("authority")
        if form.apart:
            for role in ("registry", "nsmgr", "forwarder", "nse"):
                processes[role] = starter.role(role)
            processes["client"] = starter.driver("client")
        else:
            processes["one process"] = starter.driver("whole")
            if form.endpoint_apart:
                processes["nse"] = starter.role("nse")
            if form.client_apart:
                processes["client"] = starter.driver("client")
        mesh = Mesh(form, spaces, far, processes)
        mesh.ask()
        yield mesh


class Starter:
    """Starts the processes of a mesh, which end with ``stack``."""

    def __init__(self, config: Config, folder: Path, profiles: Path | None, stack: ExitStack) -> None:
        self.config = config
        self.folder = folder
        self.profiles = profiles
        self.stack = stack

    def _profile(self, name: str) -> Path | None:
        return self.profiles / f"{name}.prof" if self.profiles else None

    def _keep(self, process: Process) -> Process:
        self.stack.callback(process.stop)
        return process

    def ready(self, part: str) -> None:
        """Start a driver, and wait until it says that it is there."""
        stdout = self.driver(part).popen.stdout
        assert stdout is not None
        stdout.readline()

    def driver(self, part: str) -> Process:
        """Start ``driver.py`` as a part of the mesh."""
        given = {**asdict(self.config), "part": part}
        profile = self._profile(part)
        watched = ["-m", "cProfile", "-o", str(profile)] if profile else []
        argv = [sys.executable, *watched, str(HERE / "driver.py"), json.dumps(given)]
        return self._keep(Process(part, argv, self.folder / f"{part}.log", talk=True))

    def role(self, role: str) -> Process:
        """Start ``nsm run`` as one of :data:`ROLES`."""
        config = self.config
        url = config.url
        environment = {
            "registry": {"NSM_LISTEN_ON": url("registry")},
            "nsmgr": {"NSM_LISTEN_ON": url("nsmgr"), "NSM_REGISTRY_URL": url("registry")},
            "forwarder": {"NSM_CONNECT_TO": url("nsmgr"), "NSM_LISTEN_ON": url("forwarder")},
            "nse": {
                "NSM_CONNECT_TO": url("nsmgr"),
                "NSM_LISTEN_ON": url("nse"),
                "NSM_SERVICE_NAMES": SERVICE,
                "NSM_PAYLOAD": "IP",
                "NSM_CIDR_PREFIX": PREFIX,
                "NSM_NETNS": config.far,
                "NSM_PBR_CONFIG_PATH": "",
            },
        }[role]
        arguments = {"registry": ("registry-memory",), "nse": ("nse", "icmp-responder")}.get(role, (role,))
        name = {"NSM_NAME": f"{role}-{self.folder.name}", "NSM_MAX_TOKEN_LIFETIME": "1h"}
        identity = {"SPIFFE_ENDPOINT_SOCKET": config.workload_api}
        return self._keep(
            Process(
                role,
                command("run", *arguments, profile=self._profile(role)),
                self.folder / f"{role}.log",
                environment={**environment, **name, **identity},
            )
        )
