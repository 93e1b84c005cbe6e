"""Pods without a sidecar in a real cluster: kubelet, containerd, runc, and the agent from the chart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import lab_cluster as lab
import lab_mesh
import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
WISH = {"networkservicemesh.io": "kernel://agents/nsm-1", "networkservicemesh.io/mode": "agent"}
GATE = "networkservicemesh.io/wires"
ROLES = ("nsm-node-agent", "nsm-identity-agent", "nsmgr", "forwarder")


@pytest.fixture(scope="module")
def agents(mesh: None) -> Iterator[None]:
    """Have the agent on each node, and pods told of their wires; afterwards all is as it was."""
    before = lab_mesh.revision()
    chart = str(lab.PROJECT / "deploy/helm")
    settings = ("--set=nodeAgent.enabled=true", "--set=nsmgr.tellPods=true")
    lab.helm("upgrade", "nsmesh", chart, "-n", lab.SYSTEM, "--reuse-values", *settings)
    for role in ROLES:
        lab.kubectl("-n", lab.SYSTEM, "rollout", "status", f"ds/{role}", "--timeout=90s")
    yield
    lab.helm("rollback", "nsmesh", str(before), "-n", lab.SYSTEM)
    lab_mesh.wait_for_mesh()


def plain(name: str, node: int) -> dict[str, Any]:
    """Return a pod with an application, no client, no volume of ours, and the readiness gate."""
    made = lab.pod(name, node, lab.application(), volumes=[], readinessGates=[{"conditionType": GATE}])
    made["metadata"]["annotations"] = dict(WISH)
    return made


def unprivileged(pod: dict[str, Any]) -> dict[str, Any]:
    """Return the pod as the Pod Security level restricted wants it: none of that is ours."""
    pod["spec"]["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in pod["spec"]["containers"]:
        container["securityContext"] = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
    return pod


def index(namespace: str, name: str) -> str:
    """Return the line of its interface, by which one that was made anew is known."""
    return lab.inside(namespace, name, "ip", "-o", "link", "show", "nsm-1").split(":")[0]


def waits_for_its_gate(namespace: str, name: str) -> bool:
    """Whether the kubelet sees all containers ready, and holds the pod back all the same."""
    status = lab.objects("pod", "-n", namespace, name)["status"]
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    if conditions.get("ContainersReady", {}).get("status") != "True":
        return False
    return conditions["Ready"].get("reason") == "ReadinessGatesNotReady"


def events(namespace: str, name: str) -> list[str]:
    """Return what was said of a pod's wires."""
    selector = f"--field-selector=involvedObject.name={name}"
    return [item["message"] for item in lab.objects("events", "-n", namespace, selector)["items"]]


def test_a_pod_of_its_application_alone(agents: None, namespace: str) -> None:
    """Ready by the gate once its wire to another node is up; an agent that ends leaves it; nothing stays."""
    lab.create(namespace, plain("one", 1))
    lab.until("it runs, and is not ready", lambda: waits_for_its_gate(namespace, "one"))
    lab.create(namespace, lab.responder("nse", 2, "172.16.7.0/31", "agents"))
    lab.ready(namespace, "nse", "one", limit=90)
    far = "172.16.7.0"
    assert lab.pings(namespace, "one", far)
    found = lab.objects("pod", "-n", namespace, "one")
    (told,) = json.loads(found["metadata"]["annotations"]["networkservicemesh.io/status"])
    assert (told["interface"], told["name"], told["ips"]) == ("nsm-1", "agents", ["172.16.7.1"])
    assert [one["name"] for one in found["spec"]["containers"]] == ["app"]
    assert any(line.startswith("wire nsm-1 to nse") for line in events(namespace, "one"))
    before = index(namespace, "one")
    agent = lab_mesh.pod_of("nsm-node-agent", 1)
    lab.kubectl("-n", lab.SYSTEM, "delete", "pod", agent)
    lab.kubectl("-n", lab.SYSTEM, "rollout", "status", "ds/nsm-node-agent", "--timeout=90s")
    lab.until(
        "the next one goes on",
        lambda: (
            "all wires are up"
            in lab.kubectl("-n", lab.SYSTEM, "logs", lab_mesh.pod_of("nsm-node-agent", 1), check=False)
        ),
    )
    assert index(namespace, "one") == before
    assert lab.pings(namespace, "one", far)
    lab.kubectl("-n", namespace, "delete", "pod", "one", "--grace-period=1")
    lab.until(
        "the endpoint has no wire",
        lambda: far not in lab.inside(namespace, "nse", "ip", "-4", "addr", "show"),
    )


def test_a_pod_in_a_restricted_namespace(agents: None, namespace: str) -> None:
    """Where no privilege may be had, also none of a client's, it has its wire, and its own identity."""
    lab.create(namespace, lab.responder("nse", 2, "172.16.7.8/31", "agents-restricted"))
    lab.ready(namespace, "nse")
    level = "pod-security.kubernetes.io/enforce"
    lab.kubectl("label", "namespace", namespace, f"{level}=restricted")
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        lab.create(namespace, plain("refused", 1))
    wanted = unprivileged(plain("two", 1))
    wanted["metadata"]["annotations"]["networkservicemesh.io"] = "kernel://agents-restricted/nsm-1"
    lab.create(namespace, wanted)
    lab.ready(namespace, "two", limit=90)
    assert "172.16.7.9/32" in lab.inside(namespace, "two", "ip", "-o", "-4", "addr", "show", "nsm-1")
    # without CAP_NET_RAW it cannot ping; the answer at the other end is the same packets
    lab.until("the ping from the endpoint", lambda: lab.pings(namespace, "nse", "172.16.7.9"), 10)
    spec = lab.objects("pod", "-n", namespace, "two")["spec"]
    assert [one["name"] for one in spec["containers"]] == ["app"]
    assert not [one for one in spec.get("volumes", ()) if "hostPath" in one]
