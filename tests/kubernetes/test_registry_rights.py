"""The rights that the chart gives to registry-k8s are those that it needs."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest
import yaml
from kubernetes_lab import LAB, PROJECT
from kubernetes_rights import proven
from kubernetes_stores import apply_crds, ep, eventually
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import User

from nsmesh.core.clock import SystemClock
from nsmesh.core.scope import Scope
from nsmesh.kubernetes.client import connected
from nsmesh.kubernetes.codec import ENDPOINTS, SERVICES
from nsmesh.kubernetes.collector import Collector
from nsmesh.kubernetes.lease import Lease
from nsmesh.kubernetes.store import KubernetesStore
from nsmesh.model.messages import NetworkService
from nsmesh.model.times import timestamp

KINDS = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def rights(namespace: str) -> list[dict]:
    """Return the registry's, as the chart makes them for a namespace."""
    program = LAB / "bin/helm"
    if not program.exists():
        pytest.skip(f"helm is not built: no {program}")
    chart = [program, "template", "nsmesh", PROJECT / "deploy/helm", "-n", namespace]
    made = subprocess.run(
        [*chart, "--set=registry.role=registry-k8s"], capture_output=True, text=True, check=True
    )
    items = [item for item in yaml.safe_load_all(made.stdout) if item and item["kind"] in KINDS]
    found = [item for item in items if item["metadata"]["name"] == "nsm-registry"]
    for item in found:
        if item["kind"] == "ClusterRoleBinding":
            item["metadata"]["name"] = f"nsm-registry-{namespace}"
    return found


def test_the_registry_needs_what_the_chart_gives(api_server, api_namespace):
    """Every call that it makes is allowed, and it makes each that is; nothing is written elsewhere."""
    apply_crds(api_server)
    ours = rights(api_namespace)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "registry"}}
    whole = {"apiVersion": "v1", "kind": "List", "items": [account, *ours]}
    api_server.kubectl("-n", api_namespace, "apply", "-f", "-", stdin=json.dumps(whole))
    token = api_server.kubectl("-n", api_namespace, "create", "token", "registry").strip()
    configuration = KubeConfig.from_file(str(api_server.kubeconfig)).get()._replace(user=User(token=token))

    async def main():
        clock = SystemClock()
        async with connected(configuration) as api, Scope("test") as scope:
            services = KubernetesStore(api, SERVICES, namespace=api_namespace)
            endpoints = KubernetesStore(api, ENDPOINTS, namespace=api_namespace)
            async with services.running(scope), endpoints.running(scope):
                await services.put(NetworkService(name=api_namespace))
                await endpoints.put(ep("a", api_namespace))
                await endpoints.put(ep("a", api_namespace, url="tcp://h:2"))
                await endpoints.put(ep("over", api_namespace, expiration_time=timestamp(clock.now() + 1)))
                lease = Lease(api, api_namespace, "nsmesh-registry", "one", clock)
                scope.spawn(Collector(endpoints, lease, 60.0, clock).run(), name="collect")
                await eventually("collected", lambda: endpoints.view.held(api_namespace, "over") is None)
                for resource, entry in ((SERVICES, NetworkService(name=api_namespace)), (ENDPOINTS, ep("a"))):
                    blind = KubernetesStore(api, resource, namespace=api_namespace)
                    await blind.put(entry)  # it is there already, as another replica made it
                assert await lease.hold()
                assert await endpoints.remove("a")
                assert await services.remove(api_namespace)

    try:
        asyncio.run(main())
    finally:
        api_server.kubectl("delete", "clusterrolebinding", f"nsm-registry-{api_namespace}")
    rules = [rule for item in ours for rule in item.get("rules", ())]
    proven(api_server, "registry", api_namespace, rules)
    who = f"--as=system:serviceaccount:{api_namespace}:registry"
    for verb, what in (("create", "networkservices.networkservicemesh.io"), ("get", "secrets")):
        assert "no" in api_server.kubectl("auth", "can-i", verb, what, who, "-n", "default", check=False)
