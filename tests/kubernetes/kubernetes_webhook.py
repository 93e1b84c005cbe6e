"""The admission webhook as a process beside a real API server, for tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from kubernetes_lab import PROJECT, ApiServer, until

KEY = "networkservicemesh.io"
URL = "kernel://icmp-responder/nsm-1"
CONFIGURATIONS = "mutatingwebhookconfigurations"


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@dataclass
class Webhook:
    """One replica, running."""

    process: subprocess.Popen
    log: Path
    port: int
    lines: list[dict] = field(default_factory=list)

    def said(self, event: str) -> list[dict]:
        """Return its log lines with that event."""
        whole = (line for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in map(json.loads, whole) if line["event"] == event]

    def end(self) -> None:
        """Let it end by itself."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text()

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Mesh:
    """Where the webhook is registered: its namespace, its Service, the name of its configuration."""

    server: ApiServer
    namespace: str
    name: str
    port: int

    def configuration(self) -> dict:
        """Return the registration."""
        return json.loads(self.server.kubectl("get", CONFIGURATIONS, self.name, "-o", "json"))

    def patched(self, namespace: str) -> bool:
        """Say whether an annotated pod in ``namespace`` gets a client now."""
        text = self.server.kubectl(
            "create",
            "-n",
            namespace,
            "--dry-run=server",
            "-o=json",
            "-f",
            "-",
            stdin=json.dumps(pod()),
            check=False,
        )
        with suppress(ValueError):
            return "initContainers" in json.loads(text)["spec"]
        return False

    def effective(self, namespace: str) -> None:
        """Wait until API servers call the webhook."""
        until("annotated pods get a client", lambda: self.patched(namespace))


@contextmanager
def mesh(server: ApiServer, port: int):
    """Make a namespace with a Service that leads to ``port`` here; nothing of it is left."""
    name = f"m-{uuid.uuid4().hex[:8]}"
    server.kubectl("create", "namespace", name)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "webhook", "namespace": name},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    server.kubectl("create", "-f", "-", stdin=json.dumps(service))
    try:
        yield Mesh(server, name, name, port)
    finally:
        server.kubectl("delete", CONFIGURATIONS, name, "--ignore-not-found")
        server.kubectl("delete", "namespace", name, "--wait=false")


@contextmanager
def replica(where: Mesh, folder: Path, port: int, **settings: str):
    """Run one replica that listens at ``port``."""
    log = folder / f"webhook-{uuid.uuid4().hex[:4]}.log"
    environment = {
        "KUBECONFIG": str(where.server.kubeconfig),
        "NSM_NAME": where.name,
        "NSM_NAMESPACE": where.namespace,
        "NSM_SERVICE_NAME": "webhook",
        "NSM_SERVICE_PORT": str(where.port),
        "NSM_LISTEN_ON": f"tcp://127.0.0.1:{port}",
        "NSM_WEBHOOK_MODE": "selfregister",
        "NSM_CONTAINER_IMAGES": "mesh/cmd-nsc:v1",
        "NSM_INIT_CONTAINER_IMAGES": "mesh/cmd-nsc-init:v1",
        "NSM_LABELS": "spiffe.io/spiffe-id:true",
        "NSM_KUBELET_QPS": "0",
        **settings,
    }
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "nsmesh.cli.main", "run", "admission-webhook-k8s"],
            env={**os.environ, **environment},
            stdout=out,
            stderr=out,
        )
    found = Webhook(process, log, port)
    try:
        yield found
        if process.poll() is None:
            found.end()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


@contextmanager
def webhook(server: ApiServer, namespace: str, folder: Path, **settings: str):
    """Run the webhook; it is called for pods of ``namespace`` when the block begins."""
    port = free_port()
    with mesh(server, port) as where, replica(where, folder, port, **settings) as one:
        where.effective(namespace)
        yield where, one


class Balancer:
    """Leads each new connection to the next of several ports that answers, as a Service does."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._turn = 0
        self._near: set[socket.socket] = set()
        self.served: dict[int, int] = dict.fromkeys(ports, 0)
        Thread(target=self._accept, daemon=True).start()

    def lead(self, *ports: int) -> None:
        """Lead to these ports from now on, and end all connections; to none: everybody is turned away."""
        self._ports = list(ports)
        self.served |= {port: self.served.get(port, 0) for port in ports}
        self.forget()

    def close(self) -> None:
        """Take no more connections, and end those that there are."""
        self._listener.close()
        self.forget()

    def forget(self) -> None:
        """End all connections, and wait until those who called know it: none of their calls is lost."""
        for near in tuple(self._near):
            with suppress(OSError):
                near.shutdown(socket.SHUT_WR)
        until("callers close as well", lambda: not self._near)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = self._dial()
            if far is None:
                near.close()
                continue
            self._near.add(near)
            for one, other in ((near, far), (far, near)):
                Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _dial(self) -> socket.socket | None:
        for _ in self._ports:
            self._turn += 1
            port = self._ports[self._turn % len(self._ports)]
            with suppress(OSError):
                found = socket.create_connection(("127.0.0.1", port), timeout=1)
                found.settimeout(None)
                self.served[port] += 1
                return found
        return None

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        if source in self._near:
            self._near.discard(source)
            source.close()
            target.close()


def pod(value: str | None = URL, name: str = "", **spec) -> dict:
    """Return a pod; without a name it gets one."""
    named = {"name": name} if name else {"generateName": "p-"}
    annotations = {} if value is None else {"annotations": {KEY: value}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**named, **annotations},
        "spec": {"containers": [{"name": "app", "image": "app"}], **spec},
    }


def workload(kind: str, value: str | None = URL, template: dict | None = None) -> dict:
    """Return an object of group apps that has a template."""
    meta = {"labels": {"app": "x"}, **({"annotations": template} if template else {})}
    spec: dict = {
        "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": meta, "spec": {"containers": [{"name": "app", "image": "app"}]}},
    }
    if kind == "StatefulSet":
        spec["serviceName"] = "x"
    annotations = {} if value is None else {"annotations": {KEY: value}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": f"one-{uuid.uuid4().hex[:4]}", **annotations},
        "spec": spec,
    }


def documented(command: str) -> str:
    """Return what the how-to says that a command prints, on one line."""
    page = (PROJECT / "docs/how-to/kubernetes-webhook.md").read_text()
    block = next(part for part in page.split("\n\n") if part.startswith(f"    $ {command}"))
    return " ".join(block.split("\n", 1)[1].split())


def env_of(container: dict) -> dict[str, str]:
    """Return a container's variables."""
    return {one["name"]: one.get("value", "") for one in container.get("env", ())}
