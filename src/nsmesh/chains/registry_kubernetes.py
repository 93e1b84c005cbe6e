"""The registry of a domain whose memory is the API server; any number of replicas."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from nsmesh.chains.other_domains import other_domains
from nsmesh.chains.registry import ENTRIES, registry_chain
from nsmesh.chains.runtime import Runtime, served
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
        name = settings.name
        passed_on = other_domains(
            settings.proxy_registry_url,
            runtime,
            name=name,
            period=settings.expire_period,
            masks=settings.registry_client_policies,
        )
        registry = registry_chain(
            services,
            endpoints,
            name=name,
            period=settings.expire_period,
            front=(*front, *passed_on),
            clock=runtime.clock,
            collected=True,
        )

        def entries() -> dict[tuple[str, ...], float]:
            return {(name, "services"): len(services), (name, "endpoints"): len(endpoints)}

        stack.enter_context(ENTRIES.reading(entries))
        async with (
            registry.running(),
            served(runtime, settings.listen_on, registry, connections=False, registry=True) as urls,
        ):
            log.info("registry ready", name=name, urls=urls, namespace=settings.namespace)
            yield registry
