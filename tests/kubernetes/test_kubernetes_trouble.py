"""The store when its API server stops, forgets or refuses."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
import structlog
from kubernetes_stores import api_of, apply_crds, ep, eventually, grant, kubeconfig_with, store_of
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import User

from nsmesh.core.clock import SystemClock
from nsmesh.core.errors import MeshError, Unauthorized
from nsmesh.core.scope import Scope
from nsmesh.kubernetes import collector as collector_module
from nsmesh.kubernetes.client import connected
from nsmesh.kubernetes.codec import ENDPOINTS
from nsmesh.kubernetes.collector import Collector
from nsmesh.kubernetes.lease import Lease
from nsmesh.kubernetes.store import KubernetesStore
from nsmesh.model.times import timestamp

pytestmark = pytest.mark.timeout(120)


def test_the_server_goes_and_comes_back_without_its_history(own_api_server):
    """While it is away all is found as before; after it, with its history gone, nothing is missed."""
    server = own_api_server
    apply_crds(server)

    async def main():
        async with store_of(server, ENDPOINTS, "default") as store:
            await store.put(ep("stays", "s"))
            await store.put(ep("goes", "s"))
            watch = store.watch(ep("", "s", url=""))
            assert {(await anext(watch)).entry.name for _ in range(2)} == {"stays", "goes"}
            command = await asyncio.to_thread(server.stop_api)
            await eventually("noticed", lambda: store.reflector.trouble)
            assert len(await store.list(ep("", "s", url=""))) == 2
            with pytest.raises(MeshError, match="cannot be reached"):
                await store.put(ep("new", "s"))
            assert await store.get("new") is None
            await asyncio.to_thread(server.start_api, command)
            await eventually("well again", lambda: store.reflector.trouble is None)
            await asyncio.to_thread(server.kubectl, "delete", "nse", "goes")
            change = await anext(watch)
            assert (change.entry.name, change.deleted) == ("goes", True)
            lists = store.reflector.lists
            command = await asyncio.to_thread(server.stop_api)
            await eventually("noticed", lambda: store.reflector.trouble)
            store.reflector._version = "1"  # older than any history of a server that begins anew
            await asyncio.to_thread(server.start_api, command)
            await eventually("listed again", lambda: store.reflector.lists > lists, limit=60)
            await store.put(ep("new", "s"))
            change = await anext(watch)
            assert (change.entry.name, change.deleted) == ("new", False)

    asyncio.run(main())


def test_what_expired_while_the_server_was_away(own_api_server):
    """Nobody could register meanwhile: who does soon afterwards stays, and the others go in the end."""
    server = own_api_server
    apply_crds(server)
    period = 6.0

    async def main():
        clock = SystemClock()
        async with store_of(server, ENDPOINTS, "default") as store, api_of(server) as api:
            collector = Collector(store, Lease(api, "default", "l", "one", clock), period, clock)
            collecting = asyncio.create_task(collector.run())
            await eventually("it collects", lambda: collector.collecting)
            for name in ("alive", "dead"):
                await store.put(ep(name, "s", expiration_time=timestamp(clock.now() + 8)))
            watch = store.watch(ep("", "s", url=""))
            for _ in range(2):
                await anext(watch)
            with structlog.testing.capture_logs() as lines:
                command = await asyncio.to_thread(server.stop_api)
                await eventually("noticed", lambda: store.reflector.trouble)
                await asyncio.sleep(9)
                await asyncio.to_thread(server.start_api, command)
                await eventually("well again", lambda: store.reflector.trouble is None)
            said = [line["event"] for line in lines]
            assert said.count("the view of the API server may be old") == 1, "an outage is told once"
            assert said.count("the API server is back") == 1
            back = clock.monotonic()
            await store.put(ep("alive", "s", expiration_time=timestamp(clock.now() + 600)))
            changes = [await anext(watch) for _ in range(2)]
            assert [(one.entry.name, one.deleted) for one in changes] == [("alive", False), ("dead", True)]
            assert clock.monotonic() - back > period - 2
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)

    asyncio.run(main())


def test_a_role_that_lacks_a_verb(api_server, api_namespace):
    """The error names who may not do what where, and what to give."""
    apply_crds(api_server)
    with_token = json.loads(
        api_server.kubectl("-n", api_namespace, "create", "serviceaccount", "weak", "-o", "json")
    )
    assert with_token["kind"] == "ServiceAccount"
    token = api_server.kubectl("-n", api_namespace, "create", "token", "weak").strip()
    admin = KubeConfig.from_file(str(api_server.kubeconfig)).get()
    weak = admin._replace(user=User(token=token))

    async def main():
        async with connected(weak) as api, Scope("test") as scope:
            store = KubernetesStore(api, ENDPOINTS, namespace=api_namespace)
            scope.spawn(store.reflector.run(), name="reflector")
            with pytest.raises(Unauthorized, match=r"weak.*cannot create.*networkserviceendpoints") as told:
                await store.put(ep("a", "s"))
            assert "role" in told.value.remedy
            await eventually("told", lambda: isinstance(store.reflector.trouble, Unauthorized))

    asyncio.run(main())


def test_a_collector_that_may_take_no_lease(api_server, api_namespace, tmp_path, monkeypatch):
    """It collects beside others; once it may, it takes the lease, for no longer than any other replica."""
    apply_crds(api_server)
    monkeypatch.setattr(collector_module, "REFUSED", 0.5)
    every = {"apiGroups": ["networkservicemesh.io"], "resources": ["*"], "verbs": ["*"]}
    file = kubeconfig_with(api_server, api_namespace, tmp_path, everywhere=[every])
    leases = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}
    weak = KubeConfig.from_file(str(file)).get()

    async def main():
        clock = SystemClock()
        async with connected(weak) as api, Scope("test") as scope:
            store = KubernetesStore(api, ENDPOINTS, namespace=api_namespace)
            async with store.running(scope):
                collector = Collector(store, Lease(api, api_namespace, "l", "one", clock), 60.0, clock)
                scope.spawn(collector.run(), name="collect")
                await store.put(ep("over", "s", expiration_time=timestamp(clock.now() + 3)))
                await eventually("collected", lambda: store.view.held(api_namespace, "over") is None)
                await asyncio.to_thread(grant, api_server, api_namespace, api_namespace, [leases])

                def spec() -> dict:
                    words = ("-n", api_namespace, "get", "lease", "l", "-o", "json")
                    said = api_server.kubectl(*words, check=False)
                    return json.loads(said)["spec"] if said.startswith("{") else {}

                await eventually("the lease", lambda: spec().get("holderIdentity") == "one")
                assert spec()["leaseDurationSeconds"] == 15
                assert collector.collecting

    try:
        asyncio.run(main())
    finally:
        for kind in ("clusterrole", "clusterrolebinding"):
            api_server.kubectl("delete", kind, api_namespace)


def test_many_changes_cost_no_list(api_server, api_namespace):
    """A hundred changes arrive by one watch: nothing is listed or polled again."""
    apply_crds(api_server)

    async def main():
        async with (
            store_of(api_server, ENDPOINTS, api_namespace) as writer,
            store_of(api_server, ENDPOINTS, api_namespace) as reader,
        ):
            began = time.monotonic()
            await asyncio.gather(*(writer.put(ep(f"e-{n}", api_namespace)) for n in range(100)))
            names = ep("", api_namespace, url="")
            await eventually("all", lambda: len(reader._catalogue.list(names)) == 100)
            assert reader.reflector.lists == 1
            assert time.monotonic() - began < 60

    asyncio.run(main())
