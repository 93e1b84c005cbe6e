"""Five thousand endpoints, and an etcd that forgets while nobody is looking."""

from __future__ import annotations

import asyncio
import uuid
from urllib.parse import urlsplit

import pytest
from kubernetes_stores import api_of, apply_crds, ep, eventually, store_of
from kubernetes_webhook import Balancer
from lightkube.config.kubeconfig import KubeConfig

from nsmesh.core.scope import Scope
from nsmesh.kubernetes.codec import ENDPOINTS
from nsmesh.kubernetes.store import KubernetesStore

pytestmark = pytest.mark.timeout(180)
MANY, SERVICES = 5000, 50


@pytest.fixture(scope="module")
def server(forgetful_api_server):
    """Give a server with CRDs, whose only history is etcd's."""
    apply_crds(forgetful_api_server)
    return forgetful_api_server


def port_of(server) -> int:
    """Return where it listens."""
    return urlsplit(KubeConfig.from_file(str(server.kubeconfig)).get().cluster.server).port


def stored(name: str, namespace: str, service: str) -> dict:
    """Return an endpoint as an API server keeps it."""
    meta = {"name": name, "namespace": namespace, "uid": str(uuid.uuid4()), "generation": 1}
    return {
        "apiVersion": "networkservicemesh.io/v1",
        "kind": "NetworkServiceEndpoint",
        "metadata": {**meta, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"name": name, "network_service_names": [service], "url": f"tcp://{name}:1"},
    }


def keys(names, namespace: str) -> dict[str, dict]:
    """Return endpoints of these numbers by their keys in etcd."""
    return {
        f"networkservicemesh.io/networkserviceendpoints/{namespace}/e-{number}": stored(
            f"e-{number}", namespace, f"{namespace}-{number % SERVICES}"
        )
        for number in names
    }


def test_history_that_is_compacted_while_the_watch_is_cut(server):
    """The watch gets 410 Gone, everything is listed once, and watchers hear what was missed and no more."""
    namespace = "cut"
    server.kubectl("create", "namespace", namespace)
    balancer = Balancer([port_of(server)])

    async def main():
        async with store_of(server, ENDPOINTS, namespace, port=balancer.port) as store:
            for name in ("changes", "goes", "stays"):
                await store.put(ep(name, namespace))
            watch = store.watch(ep("", namespace, url=""))
            assert {(await anext(watch)).entry.name for _ in range(3)} == {"changes", "goes", "stays"}
            lists = store.reflector.lists
            await asyncio.to_thread(balancer.lead)
            await eventually("noticed", lambda: store.reflector.trouble)

            def meanwhile():
                server.kubectl("-n", namespace, "delete", "nse", "goes")
                patch = '{"spec":{"url":"tcp://h:2"}}'
                server.kubectl("-n", namespace, "patch", "nse", "changes", "--type=merge", "-p", patch)
                server.compact()

            await asyncio.to_thread(meanwhile)
            await asyncio.to_thread(balancer.lead, port_of(server))
            async with asyncio.timeout(30):
                told = [await anext(watch) for _ in range(2)]
            assert {(one.entry.name, one.deleted, one.entry.url) for one in told} == {
                ("goes", True, "tcp://h:1"),
                ("changes", False, "tcp://h:2"),
            }
            assert store.reflector.lists == lists + 1
            await store.put(ep("new", namespace))
            change = await anext(watch)
            assert (change.entry.name, change.deleted) == ("new", False)

    try:
        asyncio.run(main())
    finally:
        balancer.close()


def test_history_that_is_compacted_between_two_pages(server):
    """Five thousand endpoints, and the list's version is gone before its second page: it is listed anew."""
    namespace = "pages"
    server.kubectl("create", "namespace", namespace)
    server.write(keys(range(MANY), namespace))

    async def main():
        async with api_of(server) as api, Scope("test") as scope:
            store = KubernetesStore(api, ENDPOINTS, namespace=namespace)
            call, pages = api.call, []

            async def counted(method, path, **more):
                page = more.get("params", {}).get("continue")
                pages.append(page)
                if page and len(pages) == 2:
                    await asyncio.to_thread(server.kubectl, "-n", namespace, "delete", "nse", "e-0")
                    await asyncio.to_thread(server.compact)
                return await call(method, path, **more)

            api.call = counted
            async with store.running(scope):
                assert pages[:3] == [None, pages[1], None]  # the second page was refused, and all begun anew
                assert len(pages) >= 2 + MANY // 500
                assert store.reflector.lists == 1
                found = await store.list(ep("", f"{namespace}-7", url=""))
                assert len(found) == MANY // SERVICES
                assert await store.get("e-0") is None
                assert (await store.get("e-4999")).url == "tcp://e-4999:1"
                api.call = call
                watch = store.watch(ep("e-1", url=""))
                assert (await anext(watch)).entry.url == "tcp://e-1:1"
                await store.put(ep("e-1", f"{namespace}-1", url="tcp://moved:1"))
                assert (await anext(watch)).entry.url == "tcp://moved:1"

    asyncio.run(main())
