"""``kubectl nsm``: a mesh in a cluster, as the API server knows it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from kubernetes_lab import LAB, PROJECT
from kubernetes_stores import apply_crds, kubeconfig_with

pytestmark = pytest.mark.timeout(120)
GROUP = "networkservicemesh.io"
READER = [
    {
        "apiGroups": [GROUP],
        "resources": ["networkservices", "networkserviceendpoints", "networkserviceconnections"],
        "verbs": ["list"],
    },
    {"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["get"]},
]
"""What docs/reference/kubernetes-rbac.md says of people who use the plug-in."""


def thing(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": name}, **fields}


class Plugin:
    """``kubectl`` with the plug-in on its path, as somebody who may read and no more."""

    def __init__(self, server, namespace: str, folder: Path) -> None:
        self.server, self.namespace, self.folder = server, namespace, folder
        program = folder / "kubectl-nsm"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m nsmesh.cli.kubectl "$@"\n')
        program.chmod(0o755)
        self.kubeconfig = kubeconfig_with(server, namespace, folder, everywhere=READER)

    def __call__(self, *words: str, code: int = 0, **environment: str) -> str:
        told = {"PATH": f"{self.folder}:{os.environ['PATH']}", "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            [LAB / "bin/kubectl", "nsm", *words],
            env={**os.environ, **told, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def apply(self, *items: dict[str, Any]) -> None:
        whole = {"apiVersion": "v1", "kind": "List", "items": list(items)}
        self.server.kubectl("-n", self.namespace, "apply", "-f", "-", stdin=json.dumps(whole))

    def status(self, name: str, **status: Any) -> None:
        patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
        self.server.kubectl("-n", self.namespace, "patch", "nsc", name, *patch)

    def pod(self, name: str, node: str, annotations: dict[str, str]) -> dict[str, Any]:
        spec = {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}
        metadata = {"name": name, "annotations": annotations}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@pytest.fixture
def plugin(api_server, api_namespace, tmp_path) -> Plugin:
    """Give kubectl with the plug-in, and a small mesh of objects in the test's namespace."""
    apply_crds(api_server)
    found = Plugin(api_server, api_namespace, tmp_path)
    mark = api_namespace
    far = {"seconds": int(time.time()) + 3600, "nanos": 0}
    over = {"seconds": int(time.time()) - 60, "nanos": 0}

    def endpoint(name: str, service: str, expiry: dict[str, int], **labels: str) -> dict[str, Any]:
        spec = {
            "network_service_names": [service],
            "network_service_labels": {service: {"labels": labels}},
            "url": "tcp://10.0.0.1:5001",
            "expiration_time": expiry,
        }
        return thing("NetworkServiceEndpoint", f"{name}-{mark}", spec=spec)

    rule = {"source_selector": {}, "routes": [{"destination_selector": {"app": "gateway"}}]}
    found.apply(
        thing("NetworkService", f"vpn-{mark}", spec={"payload": "IP", "matches": [rule]}),
        thing("NetworkService", f"lonely-{mark}", spec={"payload": "IP"}),
        endpoint("gateway", f"vpn-{mark}", far, app="gateway", nodeName=f"n1-{mark}"),
        endpoint("firewall", f"vpn-{mark}", far, app="firewall"),
        endpoint("gone", f"lonely-{mark}", over),
        endpoint("fwd", "forwarder", far, p2p="true", nodeName=f"n1-{mark}"),
        thing(
            "NetworkServiceConnection",
            "wire-1",
            spec={"client": "web", "network_service": f"vpn-{mark}", "interface": "nsm-1"},
        ),
        thing(
            "NetworkServiceConnection",
            "wire-2",
            spec={"client": "lost", "network_service": f"lonely-{mark}", "interface": "nsm-1"},
        ),
    )
    found.status(
        "wire-1", endpoint=f"gateway-{mark}", state="Up", addresses=["10.1.0.1/32"], path=["web", "m", "f"]
    )
    found.status("wire-2", state="Refused", reason="no endpoint is alive")
    return found


def test_what_it_lists(plugin: Plugin) -> None:
    """Services, endpoints, connections, forwarders, apart from each other; as tables, JSON and YAML."""
    mark = plugin.namespace
    services = json.loads(plugin("get", "services", "-o", "json"))
    (vpn,) = [row for row in services if row["name"] == f"vpn-{mark}"]
    assert vpn["endpoints"] == [f"firewall-{mark}", f"gateway-{mark}"]
    (endpoint,) = json.loads(plugin("get", "endpoints", f"gateway-{mark}", "-o", "json"))
    assert (endpoint["node"], endpoint["labels"]) == (f"n1-{mark}", {"app": "gateway"})
    (forwarder,) = json.loads(plugin("get", "forwarder", f"fwd-{mark}", "-o", "json"))
    assert forwarder["labels"] == {"p2p": "true"}
    lines = plugin("get", "nsc").splitlines()
    assert lines[0].split() == [
        "CLIENT",
        "SERVICE",
        "ENDPOINT",
        "INTERFACE",
        "ADDRESSES",
        "STATE",
        "AGE",
        "REASON",
    ]
    assert ["web", f"vpn-{mark}", f"gateway-{mark}", "nsm-1", "10.1.0.1/32", "Up"] in [
        line.split()[:6] for line in lines
    ]
    assert f"endpoint: gateway-{mark}" in plugin("describe", "connection", "web")
    assert "destinationSelector" in plugin("describe", "service", f"vpn-{mark}")
    said = plugin("status")
    assert f"n1-{mark}" in said
    assert "no endpoint is alive" in said


def test_why_a_wire_is_there_or_not(plugin: Plugin) -> None:
    """From the annotation to the endpoint: what decides is said, with what to do; the exit code tells."""
    mark = plugin.namespace
    node, agent = f"n1-{mark}", {f"{GROUP}/mode": "agent"}
    plugin.apply(
        plugin.pod("web", node, {GROUP: f"kernel://vpn-{mark}/nsm-1", **agent}),
        plugin.pod("lost", node, {GROUP: f"kernel://lonely-{mark}/nsm-1", **agent}),
        plugin.pod("new", f"n2-{mark}", {GROUP: f"kernel://vpn-{mark}", **agent}),
        plugin.pod("bare", node, {}),
        plugin.pod("alone", node, {GROUP: f"kernel://none-{mark}"}),
        plugin.pod("typo", node, {GROUP: "vpn/nsm-1"}),
    )
    assert f"wire nsm-1 to gateway-{mark} is up: web > m > f" in plugin("explain", "web")
    said = plugin("explain", "lost", "-n", mark, code=1)
    assert f"wire to lonely-{mark} is Refused: no endpoint is alive" in said
    assert f"no endpoint provides lonely-{mark}; the registrations of 1 are over" in said
    said = plugin("explain", "new", code=1)
    assert f"endpoints that may serve it: gateway-{mark}" in said
    assert (
        f"firewall-{mark} is left out: match 0: has {{app=firewall}}, but {{app=gateway}} is wanted" in said
    )
    assert f"node n2-{mark} has no forwarder" in said
    assert "the pod asks for no wire" in plugin("explain", "bare", code=1)
    said = plugin("explain", "alone", code=1)
    assert "and has no client" in said
    assert f"there is no network service none-{mark}" in said
    assert "has no mechanism in front" in plugin("explain", "typo", code=1)


def test_what_cannot_be_done(plugin: Plugin, tmp_path: Path) -> None:
    """No cluster, no such context, nothing of that name, no rights: one sentence, and what to do."""
    assert "there is no pod" in plugin("explain", "nobody", code=1)
    assert "there is nothing called 'frogs'" in plugin("get", "frogs", code=1)
    assert "there is no service none" in plugin("get", "services", "none", code=1)
    assert "has no context moon" in plugin("--context", "moon", "get", "services", code=1)
    nowhere = str(tmp_path / "nowhere")
    assert "cannot be read" in plugin("get", "services", KUBECONFIG=nowhere, code=1)
    text = plugin.kubeconfig.read_text()
    away = tmp_path / "away"
    away.write_text("\n".join(_away(line) for line in text.splitlines()))
    said = plugin("--kubeconfig", str(away), "status", code=1)
    assert "cannot be reached" in said
    assert "kubectl get nodes" in said
    blind = tmp_path / "blind"
    blind.mkdir()
    token = plugin.server.kubectl("-n", plugin.namespace, "create", "serviceaccount", "blind")
    token = plugin.server.kubectl("-n", plugin.namespace, "create", "token", "blind").strip()
    config = json.loads(plugin.server.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    (blind / "config").write_text(json.dumps(config))
    said = plugin("get", "services", code=1, KUBECONFIG=str(blind / "config"))
    assert "does not allow it" in said


def _away(line: str) -> str:
    return line.partition("server:")[0] + "server: https://127.0.0.1:1" if "server:" in line else line


def test_a_cluster_without_a_mesh(own_api_server) -> None:
    """Where the CRDs are not there it says so, and what to apply."""
    done = subprocess.run(
        [sys.executable, "-m", "nsmesh.cli.kubectl", "get", "services"],
        env={**os.environ, "KUBECONFIG": str(own_api_server.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "are the CRDs of deploy/crds applied?" in done.stderr


def test_it_is_installed_as_a_plugin() -> None:
    """The distribution has a program of the name that kubectl looks for."""
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["kubectl-nsm"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
