"""A CA and its agents on a real API server, with the rights of the manifests, for tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from kubernetes_lab import PROJECT
from lightkube.config.kubeconfig import KubeConfig

from nsmesh import rpc
from nsmesh.api import join_pb2
from nsmesh.attestation.authority import Authority
from nsmesh.attestation.keeping import Keeper
from nsmesh.attestation.names import POD, SIGN, TOKEN
from nsmesh.attestation.settings import AuthoritySettings
from nsmesh.core.call import Peer
from nsmesh.core.clock import SystemClock
from nsmesh.kubernetes.client import Api, connected, in_pod
from nsmesh.security.signing_request import make_request
from nsmesh.standalone.joining.pinned import PortIdentity

RIGHTS = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
AGENT, CA = "nsm-identity-agent", "nsm-identity-authority"


def pod(name: str, node: str, account: str = "default") -> dict[str, Any]:
    containers = [{"name": "c", "image": "none"}]
    spec = {"nodeName": node, "serviceAccountName": account, "containers": containers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@dataclass
class Cluster:
    """Two nodes, an agent's pod on the first, a pod on each, and the accounts with their rights."""

    server: Any
    namespace: str
    folder: Path
    rights: list[dict[str, Any]]

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.server.kubectl("-n", self.namespace, *arguments, **more)

    def apply(self, *items: dict[str, Any]) -> None:
        whole = {"apiVersion": "v1", "kind": "List", "items": list(items)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(whole))

    def token(self, account: str, audience: str = "nsm-ca", bound_to: str = "") -> str:
        words = ["--bound-object-kind=Pod", f"--bound-object-name={bound_to}"] if bound_to else []
        return self.kubectl("create", "token", account, f"--audience={audience}", *words).strip()

    @asynccontextmanager
    async def api(self, account: str) -> AsyncIterator[Api]:
        """Give the API server to an account: what the process calls it by, with the files of a pod."""
        folder = self.folder / account
        folder.mkdir(exist_ok=True)
        shutil.copy(self.server.folder / "pki/ca.crt", folder)
        (folder / "token").write_text(self.kubectl("create", "token", account).strip())
        (folder / "namespace").write_text(self.namespace)
        url = urlsplit(KubeConfig.from_file(str(self.server.kubeconfig)).get().cluster.server)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBERNETES_SERVICE_HOST", url.hostname)
            patch.setenv("KUBERNETES_SERVICE_PORT", str(url.port))
            account_of_pod = in_pod(folder)
        async with connected(account_of_pod) as api:
            yield api

    def settings(self) -> AuthoritySettings:
        return AuthoritySettings(namespace=self.namespace, folder=str(self.folder / "ca"))


@contextmanager
def prepared(api_server: Any, api_namespace: str, tmp_path: Path) -> Iterator[Cluster]:
    """Give a namespace with the accounts and rights of the manifests."""
    rights: list[dict[str, Any]] = []
    cluster = Cluster(api_server, api_namespace, tmp_path, rights)
    for item in yaml.safe_load_all((PROJECT / "deploy/manifests/nsmesh.yaml").read_text()):
        if item and item["kind"] in RIGHTS and "identity" in item["metadata"]["name"]:
            meta = item["metadata"]
            if "namespace" in meta:
                meta["namespace"] = api_namespace
            for subject in item.get("subjects", ()):
                subject["namespace"] = api_namespace
            if item["kind"] == "ClusterRoleBinding":
                meta["name"] += f"-{api_namespace}"
            rights.append(item)
    accounts = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        for name in (AGENT, CA, "default", "other")
    ]
    nodes = [f"{api_namespace}-{number}" for number in (1, 2)]
    cluster.apply(
        *({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}} for name in nodes),
        *accounts,
        *rights,
        pod("agent", nodes[0], AGENT),
        pod("imposter", nodes[0], "other"),
        pod("near", nodes[0]),
        pod("far", nodes[1]),
    )
    yield cluster
    api_server.kubectl("delete", "node", *nodes)
    for name in (AGENT, CA):
        api_server.kubectl("delete", "clusterrolebinding", f"{name}-{api_namespace}")


@asynccontextmanager
async def authority_of(cluster: Cluster) -> AsyncIterator[tuple[Authority, str]]:
    """Give the CA, and the URL where it is served."""
    clock = SystemClock()
    async with cluster.api(CA) as api:
        ca = await Keeper(api, cluster.settings()).opened(clock)
        authority = Authority(api, ca, cluster.settings(), clock)
        served = rpc.serve(
            "tcp://127.0.0.1:0", {SIGN: rpc.Unary(authority.sign)}, identity=PortIdentity(ca, clock)
        )
        async with served as server:
            yield authority, server.url


def asked(spiffe_id: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return join_pb2.SignRequest(request=make_request(key, spiffe_id)).SerializeToString()


async def sign(authority: Authority, token: str, spiffe_id: str, of_pod: str = "") -> bytes:
    metadata = ((TOKEN, f"Bearer {token}"),) if token else ()
    metadata += ((POD, of_pod),) if of_pod else ()
    call = rpc.ServerCall(
        path=SIGN, metadata=metadata, deadline=None, peer=Peer(), descriptors=None, send=lambda path: path
    )
    return await authority.sign(call, asked(spiffe_id))


def member(name: str, node: str, uid: str, **labels: str) -> dict[str, Any]:
    """Return a pod that says it is of the DaemonSet ``web``."""
    made = pod(name, node)
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "web", "uid": uid, "controller": True}
    made["metadata"] |= {"ownerReferences": [owner], "labels": labels}
    return made
