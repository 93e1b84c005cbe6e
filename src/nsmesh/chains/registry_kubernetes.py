"""The registry of a domain whose memory is the API server; any number of replicas."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from nsmesh.chains.registry import serving_registry
from nsmesh.chains.runtime import Runtime
from nsmesh.chains.settings import KubernetesRegistrySettings
from nsmesh.core.element import Chain, Element
from nsmesh.core.scope import Scope
from nsmesh.kubernetes.client import connected
from nsmesh.kubernetes.codec import ENDPOINTS, SERVICES
from nsmesh.kubernetes.collector import Collector
from nsmesh.kubernetes.lease import Lease
from nsmesh.kubernetes.store import KubernetesStore

log = structlog.get_logger()

LEASE = "nsmesh-registry"


@asynccontextmanager
async def running_kubernetes_registry(
    settings: KubernetesRegistrySettings,
    runtime: Runtime,
    *,
    front: Sequence[Element] = (),
) -> AsyncIterator[Chain]:
    """Run a registry on the API server while the block runs; it serves once everything was listed."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(connected(rate=settings.kubelet_qps))
        scope = await stack.enter_async_context(Scope("kubernetes", runtime.clock))
        services = await stack.enter_async_context(
            KubernetesStore(server, SERVICES, namespace=settings.namespace, clock=scope.clock).running(scope)
        )
        endpoints = await stack.enter_async_context(
            KubernetesStore(server, ENDPOINTS, namespace=settings.namespace, clock=scope.clock).running(scope)
        )
        identity = f"{os.uname().nodename}-{uuid.uuid4().hex[:8]}"
        lease = Lease(server, settings.namespace, LEASE, identity, scope.clock)
        collector = Collector(endpoints, lease, settings.expire_period, scope.clock)
        scope.spawn(collector.run(), name="collect expired endpoints")
        serving = serving_registry(settings, runtime, services, endpoints, front=front, collected=True)
        registry, urls = await stack.enter_async_context(serving)
        log.info("registry ready", name=settings.name, urls=urls, namespace=settings.namespace)
        yield registry
