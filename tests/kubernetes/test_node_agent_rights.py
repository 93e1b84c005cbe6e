"""What the chart gives to the node agent, and to managers that tell pods, is what they use."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml
from kubernetes_lab import LAB, PROJECT
from kubernetes_rights import given
from pod_lab import AGENT_RULES
from test_exclude_prefixes_k8s import EVERYWHERE, HERE, KUBEADM
from test_kubernetes_mirror import RULES
from test_pods_told import TELLER_RULES


def rendered(*settings: str) -> list[dict[str, Any]]:
    """Return what the chart makes."""
    program = LAB / "bin/helm"
    if not program.exists():
        pytest.skip(f"helm is not built: no {program}")
    words = [program, "template", "nsmesh", PROJECT / "deploy/helm", *(f"--set={one}" for one in settings)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def named(items: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the one object of a kind and name; nothing where it is not there."""
    found = [item for item in items if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    assert len(found) < 2
    return found[0] if found else {}


def rights(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Return group, resource and verb of each right."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_node_agent_gets_what_it_uses() -> None:
    """In the cluster what the tests of it run with; on its node process ids and one capability."""
    items = rendered("nodeAgent.enabled=true")
    assert rights(named(items, "ClusterRole", "nsm-node-agent")["rules"]) == rights(AGENT_RULES)
    spec = named(items, "DaemonSet", "nsm-node-agent")["spec"]["template"]["spec"]
    assert spec["hostPID"]
    assert "hostNetwork" not in spec
    context = spec["containers"][0]["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["SYS_PTRACE"]}
    assert not context["allowPrivilegeEscalation"]
    assert context["readOnlyRootFilesystem"]
    agent = named(items, "DaemonSet", "nsm-identity-agent")["spec"]["template"]["spec"]["containers"][0]
    told = {one["name"]: one.get("value") for one in agent["env"]}
    assert told["NSM_AUTHORIZED_DELEGATES"].endswith("/ds/nsm-node-agent/node/$(NODE_NAME)")
    named_before = [one["name"] for one in agent["env"]]
    assert named_before.index("NODE_NAME") < named_before.index("NSM_AUTHORIZED_DELEGATES")


def test_a_manager_that_tells_pods_gets_what_it_uses() -> None:
    """What the tests of it run with, but for the mirror's own rights; and a token to use them."""
    items = rendered("nsmgr.tellPods=true")
    assert rights(named(items, "ClusterRole", "nsm-pod-teller")["rules"]) == rights(TELLER_RULES) - {
        one for one in rights(RULES) if one[0]
    }
    assert named(items, "ServiceAccount", "nsmgr")["automountServiceAccountToken"]


def test_the_writer_of_prefixes_gets_what_it_uses() -> None:
    """What the test of it runs with, for a file in place of a ConfigMap, in the namespaces of the mesh."""
    items = rendered("nsmgr.findPrefixes=true")
    assert rights(named(items, "ClusterRole", "nsm-exclude-prefixes")["rules"]) == rights(EVERYWHERE)
    roles = {
        item["metadata"]["namespace"]: given(item["rules"])
        for item in items
        if item["kind"] == "Role" and item["metadata"]["name"] == "nsm-exclude-prefixes"
    }
    own = {right for right in given(HERE) if right[2] != "patch"}
    assert roles == {
        "default": {(*right[:3], "nsm-excluded-prefixes") for right in own},
        "kube-system": given(KUBEADM),
    }


def test_nobody_who_did_not_ask_gets_either() -> None:
    """Without the options there is no agent, no right, no socket for delegates, and no token."""
    items = rendered()
    assert not named(items, "DaemonSet", "nsm-node-agent")
    assert not named(items, "ClusterRole", "nsm-pod-teller")
    assert not named(items, "ServiceAccount", "nsmgr")["automountServiceAccountToken"]
    agent = named(items, "DaemonSet", "nsm-identity-agent")["spec"]["template"]["spec"]["containers"][0]
    assert "NSM_DELEGATED_LISTEN_ON" not in {one["name"] for one in agent["env"]}
