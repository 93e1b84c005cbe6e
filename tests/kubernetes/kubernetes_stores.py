"""Stores on the API server, for tests."""

from __future__ import annotations

import asyncio
import copy
import json
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from kubernetes_lab import PROJECT, ApiServer, until
from lightkube.config.kubeconfig import KubeConfig

from nsmesh.core.scope import Scope
from nsmesh.kubernetes.client import connected
from nsmesh.kubernetes.store import KubernetesStore
from nsmesh.model.messages import NetworkServiceEndpoint

CRDS = PROJECT / "deploy/crds"
PLURALS = (
    "networkservices",
    "networkserviceendpoints",
    "networkservicemanagers",
    "networkserviceconnections",
)


def apply_crds(server: ApiServer) -> None:
    """Apply ours, and wait until they are served."""
    server.kubectl("apply", "--server-side", "-f", CRDS)
    for plural in PLURALS:
        until(
            f"{plural} are served",
            lambda plural=plural: (
                "No resources" in server.kubectl("get", plural, "-A", check=False)
                or "NAME" in server.kubectl("get", plural, "-A", check=False)
            ),
        )


def grant(server: ApiServer, account_namespace: str, namespace: str, rules: list[dict]) -> None:
    """Let the service account ``role`` of a test's namespace do something; everywhere, or in a namespace."""
    kind = "Role" if namespace else "ClusterRole"
    name = account_namespace
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    group = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": kind, "metadata": meta, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": f"{kind}Binding",
        "metadata": meta,
        "roleRef": {"apiGroup": group, "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "role", "namespace": account_namespace}],
    }
    for item in (role, binding):
        server.kubectl("apply", "-f", "-", stdin=json.dumps(item))


def kubeconfig_with(server: ApiServer, namespace: str, folder: Path, *, everywhere=(), here=()) -> Path:
    """Return the kubeconfig of a new service account that may do what the rules say and no more."""
    server.kubectl("-n", namespace, "create", "serviceaccount", "role")
    grant(server, namespace, "", list(everywhere))
    grant(server, namespace, namespace, list(here))
    config = yaml.safe_load(server.kubeconfig.read_text())
    token = server.kubectl("-n", namespace, "create", "token", "role").strip()
    config["users"][0]["user"] = {"token": token}
    config["contexts"][0]["context"]["namespace"] = namespace
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    return file


@asynccontextmanager
async def api_of(server: ApiServer, port: int = 0):
    """Give a client of it as an administrator; ``port``: where another leads to it."""
    found = KubeConfig.from_file(str(server.kubeconfig)).get()
    if port:
        cluster = copy.copy(found.cluster)
        cluster.server = f"https://127.0.0.1:{port}"
        found = found._replace(cluster=cluster)
    async with connected(found) as api:
        yield api


@asynccontextmanager
async def store_of(server: ApiServer, resource, namespace: str, *, port: int = 0, **options):
    """Give a running store."""
    async with (
        api_of(server, port) as api,
        Scope("test") as scope,
        KubernetesStore(api, resource, namespace=namespace, **options).running(scope) as store,
    ):
        yield store


def ep(name: str, *services: str, url: str = "tcp://h:1", **more) -> NetworkServiceEndpoint:
    """Return an endpoint."""
    return NetworkServiceEndpoint(name=name, network_service_names=services, url=url, **more)


async def eventually(what: str, probe, limit: float = 20):
    """Wait until ``probe`` is true."""
    async with asyncio.timeout(limit):
        while not (found := probe()):  # noqa: ASYNC110 - it is the server that changes it
            await asyncio.sleep(0.02)
    assert found, what
    return found
