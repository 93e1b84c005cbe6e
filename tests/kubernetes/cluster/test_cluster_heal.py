"""Deaths of pods and of the API server under a running ping: what keeps, and what comes back by itself."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import lab_cluster as lab
import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

ADDRESS = "172.16.1.100"
SUCCESSOR = pytest.mark.xfail(
    reason="a forwarder's successor has another identity, and is refused the old wires"
)
AWAY = 60.0
"""Seconds that the API server is away."""


class Stream:
    """A ping every 100 ms in a pod; ``lost`` and ``sent`` are known when it has ended."""

    def __init__(self, namespace: str, pod: str) -> None:
        self._where = (namespace, pod)
        self.sent = self.lost = 0
        lab.inside(*self._where, "sh", "-c", f"ping -i 0.1 {ADDRESS} >/stream 2>&1 & echo $! >/stream.pid")

    def end(self) -> None:
        """Stop it, and count."""
        lab.inside(*self._where, "sh", "-c", "kill -INT $(cat /stream.pid); sleep 0.5")
        text = lab.inside(*self._where, "cat", "/stream")
        found = re.search(r"(\d+) packets transmitted, (\d+) (?:packets )?received", text)
        assert found, text[-300:]
        self.sent, self.lost = int(found[1]), int(found[1]) - int(found[2])


@contextmanager
def streamed(namespace: str, what: str) -> Iterator[Stream]:
    """Run a stream from the client; prints what it lost."""
    stream = Stream(namespace, "nsc")
    time.sleep(1)
    yield stream
    time.sleep(1)
    stream.end()
    print(f"\n{what}: {stream.lost} of {stream.sent} pings lost, one each 100 ms")  # noqa: T201 - a figure, shown by -s


def wired(namespace: str, far: int) -> str:
    """Set up a wire from node 1; returns the name of its service."""
    service = f"icmp-{namespace}"
    lab.create(namespace, lab.responder("nse", far, f"{ADDRESS}/31", service))
    lab.ready(namespace, "nse")
    lab.create(namespace, lab.client("nsc", 1, f"kernel://{service}/nsm-1"))
    lab.ready(namespace, "nsc")
    lab.until("the wire", lambda: lab.pings(namespace, "nsc", ADDRESS), 10)
    return service


def kill(label: str, node: int | None) -> None:
    """Delete the pod of a role at once, as if it had crashed; returns when its successor is ready."""
    where = [f"--field-selector=spec.nodeName=node{node}"] if node else []
    lab.kubectl("-n", lab.SYSTEM, "delete", "pod", "-l", f"app={label}", *where, "--grace-period=1")
    lab.wait_for_mesh()


@pytest.mark.parametrize(
    ("label", "node", "far"),
    [
        pytest.param("forwarder", 1, 1, marks=SUCCESSOR),
        pytest.param("forwarder", 1, 2, marks=SUCCESSOR),
        pytest.param("forwarder", 2, 2, marks=SUCCESSOR),
        ("nsmgr", 1, 1),
        ("nsmgr", 1, 2),
        ("nsmgr", 2, 2),
        ("registry", None, 2),
    ],
    ids=[
        "forwarder-of-one-node",
        "local-forwarder",
        "remote-forwarder",
        "manager-of-one-node",
        "local-manager",
        "remote-manager",
        "registry",
    ],
)
def test_a_role_dies(namespace: str, label: str, node: int | None, far: int) -> None:
    """The wire has its addresses afterwards, packets pass, and another client gets a wire."""
    service = wired(namespace, far)
    with streamed(namespace, f"{label} of node {node} dies, endpoint on node {far}"):
        kill(label, node)
        lab.until("the ping", lambda: lab.pings(namespace, "nsc", ADDRESS), 60)
        time.sleep(3)
        lab.until("the ping later", lambda: lab.pings(namespace, "nsc", ADDRESS), 30)
    assert "172.16.1.101/32" in lab.inside(namespace, "nsc", "ip", "-o", "address", "show", "nsm-1")
    lab.create(namespace, lab.responder("nse-2", far, "172.16.2.100/31", f"{service}-2"))
    lab.ready(namespace, "nse-2")
    lab.create(namespace, lab.client("nsc-2", 1, f"kernel://{service}-2/nsm-1"))
    lab.ready(namespace, "nsc-2")
    lab.until("the second wire", lambda: lab.pings(namespace, "nsc-2", "172.16.2.100"), 20)


@pytest.mark.parametrize("far", [1, 2], ids=["local", "remote"])
def test_the_endpoint_dies(namespace: str, far: int) -> None:
    """Another endpoint of the same service takes the wire over."""
    service = wired(namespace, far)
    with streamed(namespace, f"endpoint on node {far} dies, another comes"):
        lab.kubectl("-n", namespace, "delete", "pod", "nse", "--grace-period=1")
        lab.create(namespace, lab.responder("nse-next", far, f"{ADDRESS}/31", service))
        lab.ready(namespace, "nse-next")
        lab.until("the ping", lambda: lab.pings(namespace, "nsc", ADDRESS), 60)


def test_the_api_server_is_away(namespace: str) -> None:
    """For a minute nothing answers there: no packet is lost, and afterwards new wires come."""
    service = wired(namespace, 2)
    pid = int((lab.LAB / "cluster/pid/kube-apiserver").read_text().split()[0])
    with streamed(namespace, f"API server away for {AWAY:.0f} s") as stream:
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(AWAY)
        finally:
            os.kill(pid, signal.SIGCONT)
        lab.until("the API server", lambda: lab.kubectl("get", "--raw", "/readyz", check=False) == "ok", 60)
    assert stream.lost == 0
    lab.wait_for_mesh()
    lab.create(namespace, lab.responder("nse-2", 2, "172.16.2.100/31", f"{service}-2"))
    lab.ready(namespace, "nse-2")
    lab.create(namespace, lab.client("nsc-2", 1, f"kernel://{service}-2/nsm-1"))
    lab.ready(namespace, "nsc-2")
    lab.until("the second wire", lambda: lab.pings(namespace, "nsc-2", "172.16.2.100"), 20)
