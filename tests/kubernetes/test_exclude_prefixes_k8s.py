"""The role exclude-prefixes-k8s, on a real API server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import yaml
from kubernetes_lab import until
from kubernetes_rights import proven
from kubernetes_stores import grant, kubeconfig_with

from nsmesh.elements.excluded_prefixes import read_prefixes

pytestmark = pytest.mark.timeout(120)

EVERYWHERE = [
    {"apiGroups": [""], "resources": ["nodes", "pods", "services"], "verbs": ["list", "watch"]},
    {"apiGroups": ["networking.k8s.io"], "resources": ["servicecidrs"], "verbs": ["list", "watch"]},
]
HERE = [
    {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["excluded-prefixes-config"],
        "verbs": ["list", "watch"],
    },
    {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["nsm-config"], "verbs": ["patch"]},
]
KUBEADM = [
    {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["kubeadm-config"],
        "verbs": ["list", "watch"],
    }
]
"""What docs/reference/kubernetes-rbac.md says."""


@contextmanager
def role(server, namespace, tmp_path, **environment):
    """Run the role's process; gives its log."""
    log = tmp_path / "log"
    settings = {
        "KUBECONFIG": str(server.kubeconfig),
        "NSM_CONFIG_MAP_NAMESPACE": namespace,
        "NSM_OUTPUT_FILE_PATH": str(tmp_path / "out/excluded.yaml"),
        **environment,
    }
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "nsmesh.cli.main", "run", "exclude-prefixes-k8s"],
            env={**os.environ, **settings},
            stdout=out,
            stderr=out,
        )
    try:
        yield log
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


def config_map(server, namespace, name, **data):
    """Make a ConfigMap, or change it."""
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    server.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(item))


def test_what_the_cluster_uses_is_in_the_file(own_api_server, tmp_path):
    """Nodes, services, kubeadm's config, the user's ConfigMap and the settings; a change is written too."""
    server = own_api_server
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n"},
        "spec": {"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24", "fd00:7::/64"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]},
    }
    server.kubectl("create", "-f", "-", stdin=json.dumps(node))
    server.kubectl("create", "namespace", "kube-system", check=False)
    kubeadm = {"networking": {"podSubnet": "10.200.0.0/16,fd00:200::/56", "serviceSubnet": "10.203.0.0/16"}}
    config_map(server, "kube-system", "kubeadm-config", ClusterConfiguration=yaml.safe_dump(kubeadm))
    config_map(
        server,
        "default",
        "excluded-prefixes-config",
        **{"excluded_prefixes_input.yaml": "prefixes: [172.16.0.0/12]"},
    )
    file = tmp_path / "out/excluded.yaml"
    with role(server, "default", tmp_path, NSM_EXCLUDED_PREFIXES="198.18.0.0/15") as log:
        until("it is written", file.exists)
        found = set(read_prefixes(file.read_text()))
        assert found >= {
            *("10.244.7.0/24", "fd00:7::/64", "10.200.0.0/16", "fd00:200::/56", "10.203.0.0/16"),
            *("172.16.0.0/12", "198.18.0.0/15"),
        }
        service = json.loads(server.kubectl("get", "service", "kubernetes", "-o", "json"))["spec"][
            "clusterIP"
        ]
        cidrs = server.kubectl("get", "servicecidrs", "-o", "jsonpath={.items[*].spec.cidrs[*]}").split()
        assert found >= set(cidrs), service
        key = "excluded_prefixes_input.yaml"
        config_map(server, "default", "excluded-prefixes-config", **{key: "prefixes: [172.16.0.0/12"})
        until("nonsense is told", lambda: "not understood" in log.read_text())
        assert "172.16.0.0/12" in read_prefixes(file.read_text())
        config_map(server, "default", "excluded-prefixes-config", **{key: "Prefixes: [203.0.113.0/24]"})
        until("the change is written", lambda: "203.0.113.0/24" in read_prefixes(file.read_text()))
        assert "172.16.0.0/12" not in read_prefixes(file.read_text())
        server.kubectl("delete", "configmap", "excluded-prefixes-config")
        until("it is gone", lambda: "203.0.113.0/24" not in read_prefixes(file.read_text()))


def test_into_a_config_map(api_server, api_namespace, tmp_path):
    """Other keys of the ConfigMap stay; the rights that the reference names are enough, and all are used."""
    config_map(api_server, api_namespace, "nsm-config", other="stays")
    options = {"NSM_PREFIXES_OUTPUT_TYPE": "config-map", "NSM_EXCLUDED_PREFIXES": "198.18.0.0/15"}

    def data():
        return json.loads(
            api_server.kubectl("-n", api_namespace, "get", "configmap", "nsm-config", "-o", "json")
        )["data"]

    api_server.kubectl("create", "namespace", "kube-system", check=False)
    kubeconfig = kubeconfig_with(api_server, api_namespace, tmp_path, everywhere=EVERYWHERE, here=HERE)
    grant(api_server, api_namespace, "kube-system", KUBEADM)
    with role(api_server, api_namespace, tmp_path, KUBECONFIG=str(kubeconfig), **options) as log:
        until("it is written", lambda: "excluded_prefixes_output.yaml" in data())
        assert "not listed yet" not in log.read_text()
        assert "198.18.0.0/15" in read_prefixes(data()["excluded_prefixes_output.yaml"])
        assert data()["other"] == "stays"
        proven(api_server, "role", api_namespace, [*EVERYWHERE, *HERE, *KUBEADM])


def test_settings_that_cannot_be_used(tmp_path):
    """A mistake ends the role with one sentence, before anybody is asked for a cluster."""
    for variable, value, told in (
        ("NSM_PREFIXES_OUTPUT_TYPE", "configmap", "say file or config-map"),
        ("NSM_EXCLUDED_PREFIXES", "10.0.0.0/99", "write CIDRs"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "nsmesh.cli.main", "run", "exclude-prefixes-k8s"],
            env={**os.environ, "KUBECONFIG": str(tmp_path / "none"), variable: value},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 1
        assert told in done.stderr
        assert "Traceback" not in done.stderr
