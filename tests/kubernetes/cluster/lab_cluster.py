"""The two-node cluster, its tools, and the mesh in it, for tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[3]
SCRIPTS = Path(os.environ.get("NSMESH_LAB_SCRIPTS") or PROJECT / "tests/kubernetes/lab")
LAB = Path(os.environ.get("NSMESH_LAB") or Path.home() / ".cache/nsmesh-lab")
PREFIX = os.environ.get("NSMESH_NS", "nml")
IMAGE = "localhost/nsmesh/nsm:test"
TOOLS = "localhost/nsmesh-lab/tools:1"
SYSTEM = "nsm-system"
PYTHON = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
"""What the image has, too: it is made of the interpreter that runs this."""
PROGRAMS = [
    "etcd",
    "kube-apiserver",
    "kubectl",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "pause",
    "helm",
]
SYSTEM_PROGRAMS = [
    "containerd",
    "ctr",
    "runc",
    "nft",
    "ip",
    "openssl",
    "curl",
    "busybox",
    "dash",
    "nsenter",
    "unshare",
]


def missing() -> str:
    """Say why the cluster cannot be brought up here; nothing where it can."""
    if os.geteuid() != 0:
        return "needs root"
    if not (SCRIPTS / "cluster-up.sh").exists():
        return f"the lab's scripts are not in {SCRIPTS}"
    if lost := [name for name in SYSTEM_PROGRAMS if shutil.which(name) is None]:
        return f"missing programs: {', '.join(lost)} (make test-cluster installs them)"
    if lost := [name for name in PROGRAMS if not (LAB / "bin" / name).exists()]:
        return f"not built: {', '.join(lost)} (make test-cluster builds them; needs Go)"
    return ""


def run(*command: str | Path, stdin: str | None = None, check: bool = True, limit: float = 180) -> str:
    """Run a command and return its output; on failure say what it wrote."""
    done = subprocess.run(
        [str(word) for word in command],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=limit,
        env={**os.environ, "NSMESH_LAB": str(LAB), "NSMESH_NS": PREFIX},
    )
    assert done.returncode == 0 or not check, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout


def kubectl(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
    """Run kubectl against the cluster."""
    return run(SCRIPTS / "kubectl.sh", *arguments, stdin=stdin, check=check)


def objects(*arguments: str) -> Any:
    """Return what kubectl gets, decoded."""
    return json.loads(kubectl("get", *arguments, "-o", "json"))


def in_node(number: int, *command: str, check: bool = True) -> str:
    """Run a command in a node's namespaces."""
    return run(SCRIPTS / "in-node.sh", str(number), *command, check=check)


def until(what: str, probe: Callable[[], Any], limit: float = 60) -> Any:
    """Return what ``probe`` gives once it is true; fails after ``limit`` seconds."""
    end = time.monotonic() + limit
    while not (found := probe()):
        assert time.monotonic() < end, f"not within {limit:.0f} s: {what}"
        time.sleep(0.3)
    return found


def up() -> None:
    """Make our image, and bring the cluster up with it."""
    (LAB / "img").mkdir(parents=True, exist_ok=True)
    run(sys.executable, PROJECT / "deploy/image/oci.py", LAB / "img/nsmesh.tar", "--name", IMAGE, limit=300)
    run(SCRIPTS / "cluster-up.sh", limit=300)


def down() -> None:
    """Bring the cluster down."""
    keep = ["keep"] if os.environ.get("NSMESH_LAB_KEEP_LOGS") else []
    run(SCRIPTS / "cluster-down.sh", *keep, limit=120)


def running() -> bool:
    """Whether a cluster is up."""
    return Path(f"/run/netns/{PREFIX}cp").exists()


def helm(*arguments: str) -> str:
    """Run Helm against the cluster."""
    kubeconfig = LAB / "cluster/admin.kubeconfig"
    return run(
        "nsenter", f"--net=/run/netns/{PREFIX}cp", LAB / "bin/helm", f"--kubeconfig={kubeconfig}", *arguments
    )


def _env(**variables: str) -> list[dict[str, Any]]:
    return [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "SPIFFE_ENDPOINT_SOCKET", "value": "unix:///run/spire/sockets/agent.sock"},
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        # pods of two namespaces may have one name; what they register must not
        {"name": "NSM_NAME", "value": "$(POD_NAME).$(POD_NAMESPACE)"},
        *({"name": name, "value": value} for name, value in variables.items()),
    ]


MOUNTS = [
    {"name": "spire-agent-socket", "mountPath": "/run/spire/sockets", "readOnly": True},
    {"name": "nsm-socket", "mountPath": "/var/lib/networkservicemesh", "readOnly": True},
]
VOLUMES = [
    {"name": "spire-agent-socket", "hostPath": {"path": "/run/spire/sockets"}},
    {"name": "nsm-socket", "hostPath": {"path": "/var/lib/networkservicemesh"}},
]


def container(name: str, *arguments: str, **variables: str) -> dict[str, Any]:
    """Return a container of ours with the mounts and variables that each role has."""
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": list(arguments),
        "env": _env(**variables),
        "volumeMounts": MOUNTS,
        # as the admission webhook asks for; without, others who load the machine come first
        "resources": {"requests": {"cpu": "100m", "memory": "40Mi"}},
    }


def application() -> dict[str, Any]:
    """Return the container of an application: tools to look at its pod with."""
    return {"name": "app", "image": TOOLS, "imagePullPolicy": "Never", "command": ["/bin/sleep", "100000"]}


def pod(name: str, node: int, *containers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a pod on a node."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": f"node{node}",
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "containers": list(containers),
            "volumes": VOLUMES,
            **fields,
        },
    }


def client(name: str, node: int, services: str) -> dict[str, Any]:
    """Return a client: its init container waits for its wires, its sidecar keeps them."""
    init = container("nsc-init", "run", "nsc-init", NSM_NETWORK_SERVICES=services)
    keeps = container("nsc", "run", "nsc", NSM_NETWORK_SERVICES=services, NSM_LOG_LEVEL="DEBUG")
    return pod(name, node, application(), keeps, initContainers=[init])


def responder(
    name: str, node: int, cidr: str, service: str = "icmp-responder", **more: str
) -> dict[str, Any]:
    """Return an endpoint that answers pings."""
    nse = container(
        "nse", "run", "nse", "icmp-responder", NSM_SERVICE_NAMES=service, NSM_CIDR_PREFIX=cidr, **more
    )
    return pod(name, node, nse, application())


def deployment(pod: dict[str, Any]) -> dict[str, Any]:
    """Return a Deployment of one such pod."""
    meta = pod["metadata"]
    template = {"metadata": {"labels": meta["labels"]}, "spec": pod["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": meta["labels"]}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": meta["name"]}, "spec": spec}


def create(namespace: str, *items: dict[str, Any]) -> None:
    """Create objects in a namespace."""
    kubectl(
        "-n",
        namespace,
        "apply",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}),
    )


def ready(namespace: str, *pods: str, limit: int = 60) -> None:
    """Wait until pods are ready; on failure show what their containers said."""
    try:
        kubectl(
            "-n",
            namespace,
            "wait",
            "--for=condition=Ready",
            f"--timeout={limit}s",
            *(f"pod/{one}" for one in pods),
        )
    except AssertionError as error:
        raise AssertionError(f"{error}\n{told(namespace, *pods)}") from error


def told(namespace: str, *pods: str) -> str:
    """Return the last lines that the containers of pods, and of the mesh, have logged."""
    logs = [
        kubectl("-n", namespace, "logs", one, "--all-containers", "--tail=15", "--prefix", check=False)
        for one in pods
    ]
    logs += [
        kubectl("-n", SYSTEM, "logs", "-l", f"app={label}", "--tail=15", "--prefix", check=False)
        for label in ("nsmgr", "forwarder", "registry", "nsm-identity-agent", "nsm-identity-authority")
    ]
    return "\n".join(logs)


def inside(namespace: str, name: str, *command: str, check: bool = True) -> str:
    """Run a command in the application of a pod."""
    return kubectl("-n", namespace, "exec", name, "-c", "app", "--", *command, check=check)


def python(namespace: str, name: str, container: str, *words: str, check: bool = True) -> str:
    """Run a program of Python in a container of ours: ``words`` are its text and its arguments."""
    return kubectl("-n", namespace, "exec", name, "-c", container, "--", PYTHON, "-c", *words, check=check)


def pings(namespace: str, name: str, address: str) -> bool:
    """Whether an address answers a ping from within a pod."""
    words = ("ping", "-c", "1", "-W", "1", address)
    return " 0% packet loss" in inside(namespace, name, *words, check=False)


def restarts_of(namespace: str, name: str) -> int:
    """Return how often containers of a pod were started again."""
    return sum(
        one["restartCount"] for one in objects("pod", "-n", namespace, name)["status"]["containerStatuses"]
    )
