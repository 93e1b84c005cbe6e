"""The mesh in the cluster, as the chart installs it: its pods, its releases, and what tests add to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lab_cluster as lab

ADDRESSES = {
    "registry.clusterIP": "10.96.0.50",
    "registry.host": "10.96.0.50",
    "identity.authority.clusterIP": "10.96.0.51",
    "identity.authority.host": "10.96.0.51",
}
"""The cluster has no DNS: Services at known addresses."""


def install_mesh(*settings: str) -> None:
    """Install the chart, and wait until all of it is ready."""
    repository, _, tag = lab.IMAGE.rpartition(":")
    values = {
        "image.repository": repository,
        "image.tag": tag,
        **ADDRESSES,
        "logLevel": "DEBUG",
        # wires are refreshed each 24 s, so that a test sees what a refresh meets
        "maxTokenLifetime": "2m",
    }
    words = [f"--set={name}={value}" for name, value in values.items()]
    lab.helm(
        "install",
        "nsmesh",
        str(lab.PROJECT / "deploy/helm"),
        "-n",
        lab.SYSTEM,
        "--create-namespace",
        *words,
        *settings,
    )
    wait_for_mesh()


def wait_for_mesh() -> None:
    """Wait until all pods of the mesh are ready, and forwarders are registered."""
    for kind in (
        "deploy/nsm-identity-authority",
        "ds/nsm-identity-agent",
        "deploy/registry",
        "ds/nsmgr",
        "ds/forwarder",
    ):
        lab.kubectl("-n", lab.SYSTEM, "rollout", "status", kind, "--timeout=90s")


def pod_of(label: str, node: int) -> str:
    """Return the name of a role's pod on a node."""
    words = ("-n", lab.SYSTEM, "-l", f"app={label}", f"--field-selector=spec.nodeName=node{node}")
    return str(lab.objects("pod", *words)["items"][0]["metadata"]["name"])


def restarts(label: str, node: int) -> int:
    """Return how often the container of a role was started again on a node."""
    return lab.restarts_of(lab.SYSTEM, pod_of(label, node))


def process_of(label: str, node: int) -> str:
    """Return the process id of a role on a node, as it is there."""
    containers = lab.objects("pod", "-n", lab.SYSTEM, pod_of(label, node))["status"]["containerStatuses"]
    wanted = containers[0]["containerID"].rpartition("/")[2]
    for line in lab.in_node(node, "ctr", "-n", "k8s.io", "tasks", "ls").splitlines():
        if line.startswith(wanted):
            return line.split()[1]
    raise AssertionError(f"no process of {label} on node {node}")


def kill_process(label: str, node: int) -> None:
    """Send SIGKILL to the process of a role on a node."""
    lab.in_node(node, "kill", "-KILL", process_of(label, node))


def revision() -> int:
    """Return the number of the release as it is now."""
    return int(json.loads(lab.helm("list", "-n", lab.SYSTEM, "-o", "json"))[0]["revision"])


def upgrade(
    *settings: str, more: Sequence[str] = (), files: Mapping[str, Path] = MappingProxyType({})
) -> None:
    """Upgrade with values, texts of files and options of Helm, and wait until all is ready."""
    chart = str(lab.PROJECT / "deploy/helm")
    words = [*more, *(f"--set={one}" for one in settings)]
    words += [f"--set-file={name}={file}" for name, file in files.items()]
    lab.helm("upgrade", "nsmesh", chart, "-n", lab.SYSTEM, "--reset-then-reuse-values", *words)
    wait_for_mesh()


def own_forwarder(name: str, node: int, labels: str) -> dict[str, Any]:
    """Return one more forwarder on a node, in a pod of its own."""
    made = lab.container(
        "forwarder",
        "run",
        "forwarder",
        NSM_LABELS=labels,
        NSM_CONNECT_TO="unix:///var/lib/networkservicemesh/nsm.io.sock",
        NSM_LISTEN_ON="unix:///tmp/listen.on.sock",
        NSM_VXLAN_PORT="4790",
        NSM_TUNNEL_IP=f"10.77.0.1{node}",
    )
    made["securityContext"] = {"privileged": True}
    return lab.pod(name, node, made, lab.application(), hostNetwork=True, hostPID=True)


def network_service(name: str, payload: str, matches: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a NetworkService as an object of the API server."""
    return {
        "apiVersion": "networkservicemesh.io/v1",
        "kind": "NetworkService",
        "metadata": {"name": name},
        "spec": {"payload": payload, "matches": matches},
    }
