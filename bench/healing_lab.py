"""A mesh in which something dies, and a stream of echoes through one wire that says how long nothing passed.

Nodes are namespaces that a bridge joins; every role is a process of its own, with an identity. All endpoints
give out the same addresses, so the stream need not be told where its wire leads.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import meshes
from common import spaces
from processes import Process, command

from nsmesh.datapath import netns
from nsmesh.datapath.echo_request import echo, reply_in

TARGET = "172.16.0.0"
"""The first address of what the endpoints give out is their own."""
EVERY = 0.002
"""Seconds between two echoes of the stream."""
PATIENCE = 20.0
_SENT = struct.Struct("!d")


def ip(space: str, *arguments: str, check: bool = True) -> None:
    """Run ``ip`` in a namespace."""
    argv = ["nsenter", f"--net={space}", "ip", *arguments]
    subprocess.run(argv, check=check, capture_output=True)


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE, step: float = 0.005) -> None:
    """Wait for something, looked at each ``step`` seconds; raises SystemExit when it does not happen."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"heal: {what} did not happen in {seconds:g} s")
        time.sleep(step)


class Lab:
    """``count`` nodes, from 1 on; what is started ends with the stack."""

    def __init__(self, stack: ExitStack, count: int) -> None:
        self.stack = stack
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self.api = f"unix://{self.folder}/workload-api.sock"
        config = meshes.Config("", str(self.folder), (), "", workload_api=self.api)
        meshes.Starter(config, self.folder, None, stack).ready("authority")
        hub, *self.nodes = stack.enter_context(spaces(count + 1))
        ip(hub, "link", "add", "hub", "type", "bridge")
        ip(hub, "link", "set", "hub", "up")
        for number, node in enumerate(self.nodes, start=1):
            there = ("peer", "name", "under", "netns", Path(node).name)
            ip(hub, "link", "add", f"port{number}", "type", "veth", *there)
            ip(hub, "link", "set", f"port{number}", "master", "hub", "up")
            ip(node, "address", "add", f"192.0.2.{number}/24", "dev", "under")
            ip(node, "link", "set", "under", "up")
        self.processes: dict[str, Process] = {}
        self._named = False
        self._roles(count)

    def url(self, name: str) -> str:
        """Return the unix socket of a role."""
        return f"unix://{self.folder}/{name}.sock"

    def start(self, name: str, space: str, *arguments: str, **environment: str) -> Process:
        """Start ``nsm run ARGUMENTS`` in a namespace."""
        common = {
            "NSM_NAME": f"{name}-{self.folder.name}",
            "NSM_LISTEN_ON": self.url(name),
            "NSM_MAX_TOKEN_LIFETIME": "1h",
            "SPIFFE_ENDPOINT_SOCKET": self.api,
        }
        argv = ["nsenter", f"--net={space}", *command("run", *arguments)]
        made = Process(name, argv, self.folder / f"{name}.log", environment=common | environment)
        self.processes[name] = made
        self.stack.callback(made.stop)
        return made

    def cpu(self) -> dict[str, float]:
        """Return the seconds of processor time that each living role has taken."""
        alive = {name: one for name, one in self.processes.items() if one.popen.poll() is None}
        return {name: one.cpu() for name, one in alive.items()}

    def says(self, name: str, text: str, seconds: float = PATIENCE) -> None:
        """Wait for a line in a log."""
        log = self.folder / f"{name}.log"
        try:
            until(lambda: text in log.read_text(), f"{text!r} of {name}", seconds)
        except SystemExit as error:
            raise SystemExit(f"{error}: {log.read_text()[-2000:]}") from None

    def _roles(self, count: int) -> None:
        self.start("registry", self.nodes[0], "registry-memory")
        self.says("registry", "registry ready")
        for number in range(1, count + 1):
            where = {"NODE_NAME": f"node{number}"}
            listen = f"{self.url(f'nsmgr{number}')},tcp://192.0.2.{number}:5001"
            registry = self.url("registry")
            self.start(
                f"nsmgr{number}",
                self.nodes[number - 1],
                "nsmgr",
                NSM_LISTEN_ON=listen,
                NSM_REGISTRY_URL=registry,
                **where,
            )
            self.start(
                f"forwarder{number}",
                self.nodes[number - 1],
                "forwarder",
                NSM_CONNECT_TO=self.url(f"nsmgr{number}"),
                NSM_TUNNEL_IP=f"192.0.2.{number}",
                **where,
            )
        for number in range(1, count + 1):
            self.says(f"forwarder{number}", "registered")

    def endpoint(self, name: str, node: int, pod: str, prefix: str = "172.16.0.0/12") -> Process:
        """Start an endpoint in a namespace of its own, and wait until it is registered."""
        made = self.start(
            name,
            pod,
            "nse",
            "icmp-responder",
            NSM_CONNECT_TO=self.url(f"nsmgr{node}"),
            NSM_NETNS=pod,
            NSM_CIDR_PREFIX=prefix,
            NSM_SERVICE_NAMES="bench",
            NSM_PAYLOAD="IP",
            NSM_REGISTER_SERVICE=str(not self._named).lower(),
        )
        self._named = True
        self.says(name, '"event": "registered"')
        return made

    def client(self, pod: str, services: str = "kernel://bench/nsm-1", **environment: str) -> Process:
        """Start a client on the first node, and wait until its wires are up."""
        [made] = self.clients(pod, [services], **environment)
        return made

    def clients(self, pod: str, services: Sequence[str], **environment: str) -> list[Process]:
        """Start a client on the first node for each list of services, and wait until all wires are up."""
        names = [f"client{number or ''}" for number in range(len(services))]
        made = [
            self.start(
                name,
                pod,
                "nsc",
                NSM_CONNECT_TO=self.url("nsmgr1"),
                NSM_NETNS=pod,
                NSM_NETWORK_SERVICES=wanted,
                **environment,
            )
            for name, wanted in zip(names, services, strict=True)
        ]
        for name in names:
            self.says(name, "all wires are up", 300)
        return made


class Stream(threading.Thread):
    """Echoes from a namespace to :data:`TARGET`; each says when it went."""

    def __init__(self, pod: str) -> None:
        super().__init__(name="stream", daemon=True)
        self._socket = netns.call_in(pod, self._opened)
        self._number = os.getpid() & 0xFFFF
        self._over = threading.Event()
        self.last = 0.0
        """When the latest echo went that was answered."""

    @staticmethod
    def _opened() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        return made

    def run(self) -> None:
        """Send and hear until :meth:`end`."""
        while not self._over.is_set():
            try:
                content = _SENT.pack(time.monotonic())
                self._socket.sendto(echo(4, self._number, 1, content), (TARGET, 0))
            except OSError:
                pass  # no wire, no route: that is what is measured
            end = time.monotonic() + EVERY
            while (left := end - time.monotonic()) > 0 and select.select([self._socket], [], [], left)[0]:
                self._hear()

    def _hear(self) -> None:
        try:
            reply = reply_in(4, self._socket.recv(2048))
        except OSError:
            return
        if reply is not None and reply.number == self._number and len(reply.content) == _SENT.size:
            self.last = max(self.last, *_SENT.unpack(reply.content))

    def passes(self) -> None:
        """Wait until packets pass."""
        now = time.monotonic()
        until(lambda: self.last > now, "a packet through the wire")

    def after(self, fault: Callable[[], None], settle: float) -> float:
        """Do something; return how long no echo was answered that was sent after it.

        The fault takes a moment itself, in which some still pass: what counts is the longest silence of the
        next ``settle`` seconds, and of all until the first packet after it.
        """
        began = time.monotonic()
        fault()
        longest, known = 0.0, began
        while known < began + settle:
            last = self.last
            longest, known = max(longest, last - known), max(last, known)
            if time.monotonic() > began + PATIENCE:
                return PATIENCE
            time.sleep(0.001)
        return longest

    def end(self) -> None:
        """Send no more."""
        self._over.set()
        self.join()
        self._socket.close()
