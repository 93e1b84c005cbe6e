"""Names of wires in a real pod: the kubelet's resolver file, the C library, and the client of the webhook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lab_cluster as lab
import lab_mesh
import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).with_name("pod_dns.py").read_text()
LOOK_UP = """
import socket, sys
for name in sys.argv[1:]:
    try:
        print(name, socket.gethostbyname(name))
    except OSError:
        print(name, "unknown")
"""
WIRE = "172.16.6.0"


@pytest.fixture(scope="module")
def webhook(mesh: None) -> None:
    """Turn it on, by helm upgrade; it stays on afterwards."""
    lab_mesh.upgrade("admissionWebhook.enabled=true")
    lab.kubectl("-n", lab.SYSTEM, "rollout", "status", "deploy/admission-webhook", "--timeout=90s")


def program(name: str, text: str, *arguments: str) -> dict[str, Any]:
    """Return a container that runs a program of Python; the image has the C library's resolver too."""
    made = {**lab.application(), "name": name, "image": lab.IMAGE}
    return {**made, "command": [lab.PYTHON, "-c", text, *arguments]}


def asking(name: str, server: str, **annotations: str) -> dict[str, Any]:
    """Return a pod of somebody who looks names up; the cluster's DNS is at ``server``."""
    pod = lab.pod(name, 1, program("app", "import time; time.sleep(1e6)"), volumes=[])
    pod["metadata"]["annotations"] = annotations
    pod["spec"]["dnsPolicy"] = "None"
    pod["spec"]["dnsConfig"] = {
        "nameservers": [server],
        "searches": ["svc.cluster.local", "cluster.local"],
        "options": [{"name": "ndots", "value": "5"}],
    }
    return pod


def found(namespace: str, pod: str, *names: str) -> list[str]:
    """Return what the C library says of names, in a pod."""
    lines = lab.python(namespace, pod, "app", LOOK_UP, *names).split("\n")
    return [line.split()[1] for line in lines if line]


def asked(namespace: str, pod: str) -> set[str]:
    """Return the names that a pod's server was asked for."""
    lines = lab.kubectl("-n", namespace, "logs", pod, "-c", "dns").split("\n")
    return {line.split()[1] for line in lines if line.startswith("asked ")}


def kill_client(namespace: str, pod: str) -> None:
    """Send SIGKILL to the client in a pod on node 1."""
    statuses = lab.objects("pod", "-n", namespace, pod)["status"]["initContainerStatuses"]
    (client,) = [one["containerID"].rpartition("/")[2] for one in statuses if one["name"] == "nsc"]
    lab.in_node(1, "ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", client)


def test_names_of_a_wire_beside_those_of_the_cluster(namespace: str, webhook: None) -> None:
    """Each at its own server, also after the client was killed; without the endpoint the cluster's stay."""
    service = f"names-{namespace}"
    serves = program("dns", PROGRAM, "0.0.0.0", "db.svc.cluster.local=10.96.7.7")
    lab.create(namespace, lab.pod("dns", 1, serves, volumes=[]))
    configs = json.dumps([{"dns_server_ips": [WIRE], "search_domains": ["red.example"]}])
    nse = lab.responder("nse", 2, f"{WIRE}/31", service, NSM_DNS_CONFIGS=configs)
    nse["spec"]["containers"].append(program("dns", PROGRAM, "0.0.0.0", "web.red.example=172.16.6.99"))
    lab.create(namespace, nse)
    lab.ready(namespace, "dns", "nse")
    server = lab.objects("pod", "-n", namespace, "dns")["status"]["podIP"]
    lab.create(namespace, asking("plain", server))
    lab.create(namespace, asking("wired", server, **{"networkservicemesh.io": f"kernel://{service}/nsm-1"}))
    lab.ready(namespace, "plain", "wired", limit=90)

    names = ("web", "web.red.example", "db", "db.svc.cluster.local", "none.red.example")
    here = ["172.16.6.99", "172.16.6.99", "10.96.7.7", "10.96.7.7", "unknown"]
    lab.until("its names", lambda: found(namespace, "wired", *names) == here, 20)
    assert found(namespace, "wired", "later.red.example") == ["unknown"]
    assert "later.red.example" in asked(namespace, "nse")
    assert "later.red.example" not in asked(namespace, "dns")
    assert all(name.endswith("red.example") for name in asked(namespace, "nse"))
    assert found(namespace, "plain", *names) == ["unknown", "unknown", "10.96.7.7", "10.96.7.7", "unknown"]

    kill_client(namespace, "wired")
    lab.until("its names again", lambda: found(namespace, "wired", *names) == here, 60)

    lab.kubectl("-n", namespace, "delete", "pod", "nse", "--grace-period=1")
    lab.until("no server", lambda: found(namespace, "wired", "web.red.example") == ["unknown"], 60)
    assert found(namespace, "wired", "db", "db.svc.cluster.local") == ["10.96.7.7"] * 2
