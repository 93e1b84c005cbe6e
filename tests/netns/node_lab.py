"""For tests of whole meshes of two nodes: each role a process in its node's namespace, with an identity."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import vxlan_lab

from nsmesh.chains.registrar import registrar
from nsmesh.chains.runtime import runtime
from nsmesh.chains.workload_api import served_workload_api
from nsmesh.core.call import Call, Peer
from nsmesh.model.messages import Entry
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.entries import Entries, Template
from nsmesh.security.workload_api import WorkloadApi

NSM = Path(sys.executable).with_name("nsm")
DOMAIN = "nodes.test"
IPS = vxlan_lab.UNDERLAY[4]
_numbers = itertools.count(1)


async def register(mesh: Mesh, at: str, entries: Iterable[Entry]) -> None:
    """Register entries at the program ``at`` of a mesh, in the name of nobody who runs there."""
    async with runtime(lifetime=600, dial_timeout=5, workload_api=mesh.url("workload")) as held:
        made = registrar(
            "test",
            manager=mesh.url(at),
            peers=held.peers,
            tokens=held.tokens,
            checks=held.registry_checks(),
        )
        async with made.running():
            for entry in entries:
                await made.register(Call(peer=Peer(in_process=True)), entry)


class Mesh(contextlib.ExitStack):
    """Two nodes, ``1`` and ``2``, with a pod each; programs with a log each, that end with the block.

    ``nodes`` makes them where they are not on one link of IPv4, and ``ips`` are their addresses then.
    """

    def __init__(
        self,
        mtu: int = 1500,
        *,
        nodes: contextlib.AbstractContextManager[vxlan_lab.Nodes] | None = None,
        ips: tuple[str, str] = IPS,
    ) -> None:
        super().__init__()
        self.ips = ips
        self.mark = f"{os.getpid():x}-{next(_numbers)}"
        self.nodes = self.enter_context(nodes or vxlan_lab.nodes(mtu))
        self.spaces = {1: self.nodes.a, 2: self.nodes.b}
        self.pods = {1: self.nodes.pod_a, 2: self.nodes.pod_b}
        self.forwarders: dict[int, subprocess.Popen[bytes]] = {}
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="nodes-")))
        self.enter_context(identities(self.folder, self.url("workload")))

    def url(self, name: str) -> str:
        return f"unix://{self.folder}/{name}.sock"

    def public(self, number: int) -> str:
        """Return where the manager of a node is reached by others."""
        ip = self.ips[number - 1]
        return f"tcp://[{ip}]:5001" if ":" in ip else f"tcp://{ip}:5001"

    def start(self, name: str, space: str, *argv: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start ``nsm run ...`` in a namespace."""
        command = ["nsenter", f"--net={space}", str(NSM), "run", *argv]
        log = self.enter_context((self.folder / f"{name}.log").open("ab"))
        own = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "NSM_NAME": self.name_of(name),
            "NSM_LOG_LEVEL": "DEBUG",
            "SPIFFE_ENDPOINT_SOCKET": self.url("workload"),
        }
        process = subprocess.Popen(command, stdout=log, stderr=log, env=own | environment)
        self.callback(end, process)
        self.programs[name] = process
        return process

    def registry(self) -> None:
        """Start it on the first node; the others reach it by its path."""
        self.start("registry", self.spaces[1], "registry-memory", NSM_LISTEN_ON=self.url("registry"))
        self.until("registry", "registry ready")

    def manager(self, number: int, **environment: str) -> subprocess.Popen[bytes]:
        own = {
            "NSM_LISTEN_ON": f"{self.url(f'nsmgr{number}')},{self.public(number)}",
            "NSM_REGISTRY_URL": self.url("registry"),
            "NODE_NAME": f"node{number}",
        }
        return self.start(f"nsmgr{number}", self.spaces[number], "nsmgr", **own | environment)

    def forwarder(self, number: int, **environment: str) -> subprocess.Popen[bytes]:
        own = {
            "NSM_LISTEN_ON": self.url(f"fwd{number}"),
            "NSM_CONNECT_TO": self.url(f"nsmgr{number}"),
            "NSM_TUNNEL_IP": self.ips[number - 1],
        }
        made = self.start(f"fwd{number}", self.spaces[number], "forwarder", **own | environment)
        self.forwarders[number] = made
        return made

    def endpoint(
        self, number: int, kind: str = "icmp-responder", **environment: str
    ) -> subprocess.Popen[bytes]:
        own = {
            "NSM_CONNECT_TO": self.url(f"nsmgr{number}"),
            "NSM_LISTEN_ON": self.url(f"nse{number}"),
            "NSM_NETNS": self.pods[number],
            "NSM_CIDR_PREFIX": f"[10.9.{number}.0/24],[fd09:{number}::/64]",
            "NSM_SERVICE_NAMES": "s",
            "NSM_PAYLOAD": "IP",
        }
        process = self.start(f"nse{number}", self.pods[number], "nse", kind, **own | environment)
        name = environment.get("NSM_NAME", f"nse{number}")
        self.until(f"nse{number}", f'"name": "{name}".*"event": "registered"')
        return process

    def client(self, number: int, name: str = "nsc", **environment: str) -> subprocess.Popen[bytes]:
        own = {
            "NSM_CONNECT_TO": self.url(f"nsmgr{number}"),
            "NSM_NETNS": self.pods[number],
            "NSM_NETWORK_SERVICES": "kernel://s/nsm-1",
        }
        return self.start(name, self.pods[number], "nsc", **own | environment)

    def roles(self, **environment: str) -> None:
        """Start registry, managers and forwarders, and wait until they are ready; ``environment``: theirs."""
        self.registry()
        for number in (1, 2):
            self.manager(number)
            self.forwarder(number, **environment)
        for number in (1, 2):
            self.until_registered(f"fwd{number}")

    def name_of(self, program: str) -> str:
        """Return a program's name in its mesh: forwarders have their own on each host that has several."""
        return f"{program}-{self.mark}" if program.startswith("fwd") else program

    def until_registered(self, forwarder: str) -> None:
        """Wait until a manager knows a forwarder."""
        self.until(forwarder, f'"name": "{self.name_of(forwarder)}".*"event": "registered"', 60)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def until(self, name: str, text: str, seconds: float = 40, after: int = 0) -> None:
        """Wait for ``text`` in a log, behind its first ``after`` characters."""
        limit = time.monotonic() + seconds
        while not re.search(text, self.log(name)[after:]):
            assert time.monotonic() < limit, f"no {text!r} in the log of {name}:\n{self.log(name)[-4000:]}"
            time.sleep(0.02)


def until(condition, seconds: float = 15.0, why=lambda: "it did not happen"):
    """Wait for a condition and return what it returned; else fail with what ``why`` says."""
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, why()
        time.sleep(0.02)
    return found


def end(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGKILL) -> None:
    """End a program; nsenter has become it."""
    process.send_signal(number)
    process.wait(20)


@contextlib.contextmanager
def identities(folder: Path, url: str):
    """Serve a Workload API in a thread: one identity for each namespace."""
    ready, loops = threading.Event(), []
    stop = asyncio.Event()

    async def main() -> None:
        authority = CertificateAuthority.open(folder / "ca", DOMAIN)
        entries = Entries(template=Template("spiffe://{trust_domain}/netns/{netns}", DOMAIN))
        async with served_workload_api(WorkloadApi(authority, entries), url):
            loops.append(asyncio.get_running_loop())
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)
