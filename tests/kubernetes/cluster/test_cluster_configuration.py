"""What kubelets bring into pods that run, or keep from them: ConfigMaps of the chart, and rights."""

from __future__ import annotations

import json
from pathlib import Path

import lab_cluster as lab
import lab_mesh
import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

POLICY = """\
package mine

default valid := false

claims := found if [_, found, _] := io.jwt.decode(input.path_segments[0].token)

valid if {
    claims.sub
    not endswith(claims.sub, "/barred")
}
"""
"""Every client may have its wires, but for pods of one name."""
ORDINARY = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
BARE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
"""What the level ``restricted`` of Pod Security demands of a pod, and of each of its containers."""


def test_the_level_of_logs(mesh: None) -> None:
    """Who patches the ConfigMap changes it in roles that run, and no pod is replaced; Helm takes it back."""
    before = lab_mesh.pod_of("nsmgr", 1)

    def lowest() -> str:
        said = [
            line for line in lab.kubectl("-n", lab.SYSTEM, "logs", before).splitlines() if "lowest" in line
        ]
        return str(json.loads(said[-1])["lowest"]) if said else ""

    was = lab.objects("configmap", "nsm-logging", "-n", lab.SYSTEM)["data"]["level"]
    assert was != "TRACE"

    text = json.dumps({"data": {"level": "TRACE"}})
    lab.kubectl("-n", lab.SYSTEM, "patch", "configmap", "nsm-logging", "--type=merge", "-p", text)
    try:
        lab.until("the manager reads it", lambda: lowest() == "TRACE", 150)
        assert (lab_mesh.pod_of("nsmgr", 1), lab_mesh.restarts("nsmgr", 1)) == (before, 0)
    finally:
        lab_mesh.upgrade(more=["--force-conflicts"])
    assert lab.objects("configmap", "nsm-logging", "-n", lab.SYSTEM)["data"]["level"] == was


def test_a_policy_of_a_user(namespace: str, tmp_path: Path) -> None:
    """Managers ask it of each Request: one client is refused by the file's name, until it is taken out."""
    file = tmp_path / "mine.rego"
    file.write_text(POLICY)
    service = f"icmp-{namespace}"
    lab.create(namespace, lab.responder("nse", 2, "172.16.8.0/28", service))
    lab.ready(namespace, "nse")
    lab_mesh.upgrade(files={"policies.connections.mine\\.rego": file})
    try:
        url = f"kernel://{service}/nsm-1"
        lab.create(namespace, lab.client("other", 1, url), lab.client("barred", 1, url))
        lab.ready(namespace, "other")

        def said() -> str:
            return lab.kubectl("-n", namespace, "logs", "barred", "-c", "nsc-init", check=False)

        lab.until("the refusal", lambda: "mine.rego refused" in said(), 30)
    finally:
        lab_mesh.upgrade("policies.connections=null")
    lab.ready(namespace, "barred")


def test_a_client_without_root(namespace: str) -> None:
    """A pod of an ordinary user, without any capability, gets its wire at its node's manager."""
    service = f"icmp-{namespace}"
    lab.create(namespace, lab.responder("nse", 2, "172.16.8.16/31", service))
    lab.ready(namespace, "nse")
    client = lab.client("nsc", 1, f"kernel://{service}/nsm-1")
    spec = client["spec"]
    spec["securityContext"] = ORDINARY
    for container in (*spec["initContainers"], *spec["containers"]):
        container["securityContext"] = BARE
    lab.create(namespace, client)
    lab.ready(namespace, "nsc")
    assert "172.16.8.17/32" in lab.inside(namespace, "nsc", "ip", "-o", "address", "show", "nsm-1")
    lab.until("the ping of the client", lambda: lab.pings(namespace, "nse", "172.16.8.17"), 20)
