"""Stores on the API server, for tests."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

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


@asynccontextmanager
async def api_of(server: ApiServer):
    """Give a client of it as an administrator."""
    async with connected(KubeConfig.from_file(str(server.kubeconfig)).get()) as api:
        yield api


@asynccontextmanager
async def store_of(server: ApiServer, resource, namespace: str, **options):
    """Give a running store."""
    async with (
        api_of(server) as api,
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
