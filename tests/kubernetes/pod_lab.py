"""One node of a cluster without a kubelet: pods are objects of a real API server, bound to the node by hand.

What a kubelet would do for them is done here: a process in a cgroup of the shape that a kubelet makes, and in
a network namespace of its own. All roles are real processes, with identities that are told apart by cgroup.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes_lab import PROJECT, ApiServer
from kubernetes_stores import apply_crds
from kubernetes_webhook import free_port
from lightkube.config.kubeconfig import KubeConfig
from pod_process import Pod

NSM = [sys.executable, "-m", "nsmesh.cli.main", "run"]
RIGHTS = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
DOMAIN = "cluster.nsmesh"
AGENT_RULES = [{"apiGroups": [""], "resources": ["pods", "namespaces"], "verbs": ["list", "watch"]}]
"""What docs/reference/kubernetes-rbac.md says of the node agent."""


class PodNode(contextlib.ExitStack):
    """A node with the roles of a mesh, and namespaces ``system`` for them and ``app`` for pods."""

    def __init__(self, server: ApiServer) -> None:
        super().__init__()
        mark = uuid.uuid4().hex[:6]
        self.server, self.name = server, f"node-{mark}"
        self.system, self.app = f"s-{mark}", f"a-{mark}"
        self.folder = Path(tempfile.mkdtemp(prefix="nsmk8s"))
        self.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.pods: dict[str, Pod] = {}
        apply_crds(server)
        for namespace in (self.system, self.app):
            server.kubectl("create", "namespace", namespace)
            self.callback(server.kubectl, "delete", "namespace", namespace, "--wait=false")
            server.kubectl("-n", namespace, "create", "serviceaccount", "default", check=False)

    def apply(self, namespace: str, *items: dict[str, Any]) -> None:
        """Apply objects."""
        whole = {"apiVersion": "v1", "kind": "List", "items": list(items)}
        self.server.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(whole))

    def pod(self, namespace: str, name: str, **metadata: Any) -> Pod:
        """Make a pod of this node; nothing runs in it yet."""
        spec = {"nodeName": self.name, "containers": [{"name": "app", "image": "none"}]}
        spec |= metadata.pop("spec", {})
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}
        self.apply(namespace, made)
        uid = self.server.kubectl("-n", namespace, "get", "pod", name, "-o", "jsonpath={.metadata.uid}")
        found = self.pods[f"{namespace}/{name}"] = Pod(self.folder, namespace, name, uid)
        self.callback(found.kill)
        return found

    def delete(self, pod: Pod) -> None:
        """Delete a pod: its processes end, then its object."""
        pod.kill()
        self.server.kubectl(
            "-n", pod.namespace, "delete", "pod", pod.name, "--force", "--grace-period=0", check=False
        )

    def start(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process of the node itself."""
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(
            [*NSM, *command], env={**os.environ, **environment}, stdout=log, stderr=log
        )
        log.close()
        self.callback(_end, process)
        return process

    def role(self, role: str, *, own_network: bool = False, **environment: str) -> subprocess.Popen[bytes]:
        """Start a role of the mesh in a pod of the system's namespace."""
        pod = self.pods.get(f"{self.system}/{role}") or self.pod(self.system, role)
        return pod.start(*NSM, *role.split("."), own_network=own_network, **self.common, **environment)

    @property
    def common(self) -> dict[str, str]:
        """What each role is told."""
        return {
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{self.folder}/agent.sock",
            "NODE_NAME": self.name,
            "NSM_LOG_LEVEL": "DEBUG",
            "NSM_MAX_TOKEN_LIFETIME": "60s",
        }

    def log(self, name: str) -> str:
        """Return what a process has logged."""
        return (self.folder / f"{name}.log").read_text()

    # The mesh

    def identities(self) -> None:
        """Start the CA and the identity agent, with the rights of the manifests."""
        _rights(self)
        config = KubeConfig.from_file(str(self.server.kubeconfig)).get()
        url = urlsplit(config.cluster.server)
        told = {
            "KUBERNETES_SERVICE_HOST": str(url.hostname),
            "KUBERNETES_SERVICE_PORT": str(url.port),
            "NSM_NAMESPACE": self.system,
            "NSM_LOG_LEVEL": "DEBUG",
        }
        agent = self.pod(self.system, "agent", spec={"serviceAccountName": "nsm-identity-agent"})
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={agent.name}", "--audience=nsm-ca")
        (self.folder / "bound").write_text(self._token("nsm-identity-agent", *bound))
        port = free_port()
        self.start(
            "authority",
            "identity-authority",
            NSM_LISTEN_ON=f"tcp://127.0.0.1:{port}",
            NSM_FOLDER=str(self.folder / "ca"),
            NSM_SERVICE_ACCOUNT_FOLDER=self._account("nsm-identity-authority"),
            **told,
        )
        (self.folder / "admin").mkdir()
        delegate = f"spiffe://{DOMAIN}/ns/{self.system}/ds/nsm-node-agent/node/{self.name}"
        self.start(
            "identity-agent",
            "identity-agent",
            NSM_AUTHORITY_URL=f"tcp://127.0.0.1:{port}",
            NSM_LISTEN_ON=f"unix://{self.folder}/agent.sock",
            NSM_TOKEN_FILE=str(self.folder / "bound"),
            NSM_SERVICE_ACCOUNT_FOLDER=self._account("nsm-identity-agent"),
            NSM_DELEGATED_LISTEN_ON=f"unix://{self.folder}/admin/agent.sock",
            NSM_AUTHORIZED_DELEGATES=delegate,
            NODE_NAME=self.name,
            **told,
        )

    def account_of(self, role: str, rules: list[dict[str, Any]]) -> str:
        """Return a kubeconfig by which a role may do what ``rules`` say and no more."""
        folder = self.folder / f"kubeconfig-{role}"
        folder.mkdir()
        name = f"{self.system}-{role}"
        self.callback(self.server.kubectl, "delete", "clusterrole,clusterrolebinding", name)
        self.server.kubectl("-n", self.system, "create", "serviceaccount", role)
        group = "rbac.authorization.k8s.io"
        subject = {"kind": "ServiceAccount", "name": role, "namespace": self.system}
        self.apply(
            self.system,
            {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
            {
                "apiVersion": f"{group}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
                "subjects": [subject],
            },
        )
        config = yaml.safe_load(self.server.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": self._token(role)}
        config["contexts"][0]["context"]["namespace"] = self.system
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        return str(folder / "kubeconfig")

    def mesh(
        self, manager_rules: list[dict[str, Any]], *, registry_rules: Any = None, **manager: str
    ) -> None:
        """Start registry, manager, forwarder, and an endpoint of the service ``ping``.

        With ``registry_rules`` the registry keeps what it knows in the API server, where it may do that.
        """
        at = f"unix://{self.folder}"
        kept = {}
        if registry_rules is not None:
            account = self.account_of("registry", registry_rules)
            kept = {"KUBECONFIG": account, "NSM_NAMESPACE": self.system}
        role = "registry-k8s" if kept else "registry-memory"
        self.role(role, NSM_LISTEN_ON=f"{at}/registry.sock", **kept)
        self.role(
            "nsmgr",
            NSM_NAME="nsmgr-1",
            NSM_LISTEN_ON=f"{at}/nsm.sock",
            NSM_REGISTRY_URL=f"{at}/registry.sock",
            NSM_JOURNAL=f"{self.folder}/nsmgr.db",
            NSM_MIRROR_CONNECTIONS="true",
            NSM_OPEN_SOCKET="true",
            KUBECONFIG=self.account_of("nsmgr", manager_rules),
            **manager,
        )
        self.role(
            "forwarder",
            NSM_NAME="forwarder-1",
            NSM_CONNECT_TO=f"{at}/nsm.sock",
            NSM_LISTEN_ON=f"{at}/forwarder.sock",
            NSM_JOURNAL=f"{self.folder}/forwarder.db",
        )
        self.role(
            "nse.icmp-responder",
            own_network=True,
            NSM_NAME="nse-1",
            NSM_CONNECT_TO=f"{at}/nsm.sock",
            NSM_SERVICE_NAMES="ping",
            NSM_CIDR_PREFIX="172.31.0.0/24",
        )

    def node_agent(self, **more: str) -> subprocess.Popen[bytes]:
        """Start the node agent, in a pod of its DaemonSet, with the rights of the documentation alone."""
        name = "nsm-node-agent"
        pod = self.pods.get(f"{self.system}/{name}-1")
        if pod is None:
            container = {"name": "c", "image": "none"}
            labels = {"app": name}
            spec = {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            }
            whole = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name}, "spec": spec}
            self.apply(self.system, whole)
            uid = self.server.kubectl("-n", self.system, "get", "ds", name, "-o", "jsonpath={.metadata.uid}")
            owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": name, "uid": uid}
            pod = self.pod(
                self.system, f"{name}-1", labels=labels, ownerReferences=[{**owner, "controller": True}]
            )
            self._kubeconfig = self.account_of("agent", AGENT_RULES)
        return pod.start(
            *NSM,
            "node-agent-k8s",
            own_network=False,
            **{
                **self.common,
                "KUBECONFIG": self._kubeconfig,
                "NSM_CONNECT_TO": f"unix://{self.folder}/nsm.sock",
                "NSM_DELEGATED_IDENTITY_SOCKET": f"unix://{self.folder}/admin/agent.sock",
                "NSM_FOLDER": str(self.folder / "pods"),
                **more,
            },
        )

    def _token(self, account: str, *words: str) -> str:
        return self.server.kubectl("-n", self.system, "create", "token", account, *words).strip()

    def _account(self, account: str) -> str:
        folder = self.folder / account
        folder.mkdir()
        shutil.copy(self.server.folder / "pki/ca.crt", folder)
        (folder / "token").write_text(self._token(account))
        (folder / "namespace").write_text(self.system)
        return str(folder)


def _rights(node: PodNode) -> None:
    """Give CA and identity agent what the manifests give them, in the node's own namespace."""
    items = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": f"nsm-identity-{name}"}}
        for name in ("agent", "authority")
    ]
    for item in yaml.safe_load_all((PROJECT / "deploy/manifests/nsmesh.yaml").read_text()):
        if not item or item["kind"] not in RIGHTS or "identity" not in item["metadata"]["name"]:
            continue
        meta = item["metadata"]
        if "namespace" in meta:
            meta["namespace"] = node.system
        for subject in item.get("subjects", ()):
            subject["namespace"] = node.system
        if item["kind"] == "ClusterRoleBinding":
            meta["name"] += f"-{node.system}"
            node.callback(node.server.kubectl, "delete", "clusterrolebinding", meta["name"])
        items.append(item)
    node.apply(node.system, *items)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
