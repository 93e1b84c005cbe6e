"""Deaths of pods and of the API server under running packets: what keeps, and what comes back by itself."""

from __future__ import annotations

import os
import signal
import time

import lab_cluster as lab
import lab_mesh
import pytest
from streams import Wire, streamed, wired

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

AWAY = 60.0
"""Seconds that the API server is away."""
ROLES = [
    pytest.param("forwarder", 1, 1, id="forwarder-of-one-node"),
    pytest.param("forwarder", 1, 2, id="local-forwarder"),
    pytest.param("forwarder", 2, 2, id="remote-forwarder"),
    pytest.param("nsmgr", 1, 1, id="manager-of-one-node"),
    pytest.param("nsmgr", 1, 2, id="local-manager"),
    pytest.param("nsmgr", 2, 2, id="remote-manager"),
    pytest.param("nsm-identity-agent", 1, 2, id="identity-agent"),
    pytest.param("nsm-identity-authority", None, 2, id="authority"),
    pytest.param("registry", None, 2, id="registry"),
]


def another(wire: Wire, far: int) -> None:
    """Demand that another client gets a wire to another endpoint."""
    lab.create(wire.namespace, lab.responder("nse-2", far, "172.16.2.100/31", f"{wire.service}-2"))
    lab.ready(wire.namespace, "nse-2")
    lab.create(wire.namespace, lab.client("nsc-2", 1, f"kernel://{wire.service}-2/nsm-1"))
    lab.ready(wire.namespace, "nsc-2")
    lab.until("the second wire", lambda: lab.pings(wire.namespace, "nsc-2", "172.16.2.100"), 20)


@pytest.mark.parametrize(("label", "node", "far"), ROLES)
def test_a_pod_is_replaced(namespace: str, label: str, node: int | None, far: int) -> None:
    """No packet is lost, the interfaces stay as they are, and another client gets a wire."""
    wire = wired(namespace, far)
    where = [f"--field-selector=spec.nodeName=node{node}"] if node else []
    with streamed(wire, f"{label} of node {node} is replaced, endpoint on node {far}") as stream:
        lab.kubectl("-n", lab.SYSTEM, "delete", "pod", "-l", f"app={label}", *where, "--grace-period=1")
        lab_mesh.wait_for_mesh()
        wire.refreshed()
    assert (stream.lost, stream.pings_lost) == (0, 0)
    wire.unchanged()
    another(wire, far)


@pytest.mark.parametrize(
    ("label", "node"),
    [("forwarder", 1), ("forwarder", 2), ("nsmgr", 1), ("nsmgr", 2)],
    ids=["local-forwarder", "remote-forwarder", "local-manager", "remote-manager"],
)
def test_a_process_is_killed(namespace: str, label: str, node: int) -> None:
    """Its container starts again in the same pod: no packet is lost, and the interfaces stay as they are."""
    wire = wired(namespace, 2)
    with streamed(wire, f"{label} of node {node} gets SIGKILL") as stream:
        before = lab_mesh.restarts(label, node)
        lab_mesh.kill_process(label, node)
        lab.until("its restart", lambda: lab_mesh.restarts(label, node) == before + 1, 90)
        lab_mesh.wait_for_mesh()
        wire.refreshed()
    assert (stream.lost, stream.pings_lost) == (0, 0)
    wire.unchanged()


def test_a_pod_is_deleted_by_force(namespace: str) -> None:
    """The successor may start while the old process still ends: no packet is lost, and it gets ready."""
    wire = wired(namespace, 2)
    with streamed(wire, "the forwarder of node 1 is deleted by force") as stream:
        where = ("-l", "app=forwarder", "--field-selector=spec.nodeName=node1")
        lab.kubectl("-n", lab.SYSTEM, "delete", "pod", *where, "--force", "--grace-period=0")
        lab_mesh.wait_for_mesh()
        wire.refreshed()
    assert (stream.lost, stream.pings_lost) == (0, 0)
    wire.unchanged()


@pytest.mark.parametrize("far", [1, 2], ids=["local", "remote"])
def test_the_endpoint_dies(namespace: str, far: int) -> None:
    """Another endpoint of the same service takes the wire over."""
    wire = wired(namespace, far)
    lab.kubectl("-n", namespace, "delete", "pod", "nse", "--grace-period=1")
    lab.create(namespace, lab.responder("nse-next", far, f"{wire.address}/31", wire.service))
    lab.ready(namespace, "nse-next")
    lab.until("the ping", lambda: lab.pings(namespace, "nsc", wire.address), 60)


@pytest.mark.parametrize("far", [1, 2], ids=["local", "remote"])
def test_an_endpoint_of_a_deployment_is_replaced(namespace: str, far: int) -> None:
    """The pod that a Deployment puts in another's place gets the client's wire, at the same addresses."""
    service = f"icmp-{namespace}"
    made = lab.responder("nse", far, "172.16.1.100/31", service)
    lab.create(namespace, lab.deployment(made))
    lab.kubectl("-n", namespace, "rollout", "status", "deploy/nse", "--timeout=60s")
    lab.create(namespace, lab.client("nsc", 1, f"kernel://{service}/nsm-1"))
    lab.ready(namespace, "nsc")
    for how in (("rollout", "restart", "deploy/nse"), ("delete", "pod", "-l", "app=nse", "--grace-period=1")):
        lab.kubectl("-n", namespace, *how)
        begun = time.monotonic()
        lab.kubectl("-n", namespace, "rollout", "status", "deploy/nse", "--timeout=60s")
        lab.until("one pod", lambda: len(lab.objects("pod", "-n", namespace, "-l", "app=nse")["items"]) == 1)
        lab.until("the ping", lambda: lab.pings(namespace, "nsc", "172.16.1.100"), 30)
        print(f"\n{' '.join(how[:2])}: a ping after {time.monotonic() - begun:.1f} s")  # noqa: T201 - a figure, shown by -s
    assert lab.restarts_of(namespace, "nsc") == 0


def test_the_api_server_is_away(namespace: str) -> None:
    """For a minute nothing answers there: no packet is lost, and afterwards new wires come."""
    wire = wired(namespace, 2)
    pid = int((lab.LAB / "cluster/pid/kube-apiserver").read_text().split()[0])
    with streamed(wire, f"API server away for {AWAY:.0f} s") as stream:
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(AWAY)
        finally:
            os.kill(pid, signal.SIGCONT)
        lab.until("the API server", lambda: lab.kubectl("get", "--raw", "/readyz", check=False) == "ok", 60)
    assert (stream.lost, stream.pings_lost) == (0, 0)
    lab_mesh.wait_for_mesh()
    another(wire, 2)
