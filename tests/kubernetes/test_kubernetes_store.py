"""The store on a real API server: what every store promises, and what several replicas do."""

from __future__ import annotations

import asyncio
import json

import pytest
from kubernetes_stores import api_of, apply_crds, ep, eventually, store_of

from nsmesh.core.clock import SystemClock
from nsmesh.core.errors import Conflict, Invalid
from nsmesh.kubernetes.codec import ENDPOINTS, SERVICES
from nsmesh.kubernetes.collector import Collector
from nsmesh.kubernetes.lease import Lease
from nsmesh.model.messages import NetworkServiceEndpoint
from nsmesh.model.times import timestamp


@pytest.fixture(scope="session")
def crds(api_server):
    apply_crds(api_server)


async def take(watch, count: int, seconds: float = 10) -> list[tuple[str, str, bool]]:
    async with asyncio.timeout(seconds):
        return [
            (change.entry.name, change.entry.url, change.deleted)
            for change in [await anext(watch) for _ in range(count)]
        ]


def test_put_get_list_watch_remove(api_server, api_namespace, crds):
    """As any store: the last form counts, a watch tells each change once and in order."""
    unique = api_namespace

    async def main():
        async with store_of(api_server, ENDPOINTS, api_namespace) as store:
            watch = store.watch(ep("", unique, url=""))
            first = ep("a", unique)
            assert await store.put(first) == first
            first.url = "changed by its owner, who may"
            assert (await store.get("a")).url == "tcp://h:1"
            await store.put(ep("a", unique, url="tcp://h:2"))
            await store.put(ep("a", unique, url="tcp://h:2"))  # a sign of life
            assert [e.url for e in await store.list(ep("", unique, url=""))] == ["tcp://h:2"]
            assert await store.remove("a") is True
            assert await store.remove("a") is False
            assert await store.get("a") is None
            await store.put(ep("a", unique, url="tcp://h:3"))
            await asyncio.sleep(0.5)  # the server's own watch has told all this too by now
            assert await take(watch, 5) == [
                ("a", "tcp://h:1", False),
                ("a", "tcp://h:2", False),
                ("a", "tcp://h:2", False),
                ("a", "tcp://h:2", True),
                ("a", "tcp://h:3", False),
            ]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(watch)

    asyncio.run(main())


def test_two_replicas_over_one_object(api_server, api_namespace, crds):
    """Both writers of one object succeed, both views end alike, and the first registration's time stays."""

    async def main():
        async with (
            store_of(api_server, ENDPOINTS, api_namespace) as one,
            store_of(api_server, ENDPOINTS, api_namespace) as two,
        ):
            began = timestamp(1000.0)
            await one.put(ep("same", "s", initial_registration_time=began))
            writes = [
                store.put(ep("same", "s", url=f"tcp://h:{n}", initial_registration_time=began))
                for n in range(2, 8)
                for store in (one, two)
            ]
            await asyncio.gather(*writes)
            said = json.loads(api_server.kubectl("-n", api_namespace, "get", "nse", "same", "-o", "json"))
            url = said["spec"]["url"]
            for store in (one, two):
                held = store.view
                await eventually("same", lambda h=held: h.held(api_namespace, "same").entry.url == url)
            assert said["spec"]["initial_registration_time"] == {"seconds": 1000, "nanos": 0}

    asyncio.run(main())


def test_two_owners_of_one_name(api_server, api_namespace, crds):
    """Of two that register it at two replicas at once, one has it, and the other is told whose it is."""
    owners = [f"spiffe://td/ns/a/pod/{name}" for name in ("one", "two")]

    async def main():
        async with (
            store_of(api_server, ENDPOINTS, api_namespace) as one,
            store_of(api_server, ENDPOINTS, api_namespace) as two,
        ):
            for number in range(5):
                name = f"e-{number}"
                answers = await asyncio.gather(
                    *(
                        store.put(ep(name, "s", path_ids=[owner]))
                        for store, owner in zip((one, two), owners, strict=True)
                    ),
                    return_exceptions=True,
                )
                (refused,) = [one for one in answers if isinstance(one, Conflict)]
                (kept,) = [one for one in answers if not isinstance(one, BaseException)]
                assert f"was registered by {kept.path_ids[0]} a moment ago" in str(refused)
                said = json.loads(api_server.kubectl("-n", api_namespace, "get", "nse", name, "-o", "json"))
                assert said["spec"]["path_ids"] == list(kept.path_ids)

    asyncio.run(main())


def test_an_object_edited_into_nonsense(api_server, api_namespace, crds):
    """The schema refuses what it can with a sentence; what passes harms only itself."""

    async def main():
        async with store_of(api_server, ENDPOINTS, api_namespace) as store:
            await store.put(ep("good", api_namespace))
            await store.put(ep("bad", api_namespace))
            kubectl = ("-n", api_namespace, "patch", "nse", "bad", "--type=merge", "-p")
            refused = api_server.kubectl(*kubectl, '{"spec":{"url":"nonsense"}}', check=False)
            assert "a url is tcp://ADDRESS:PORT or unix:///SOCKET" in refused
            api_server.kubectl(*kubectl, '{"spec":null}')
            await eventually("emptied", lambda: not store.view.held(api_namespace, "bad").entry.url)
            assert [e.name for e in await store.list(ep("", api_namespace, url=""))] == ["good"]
            await store.put(ep("bad", api_namespace))
            assert len(await store.list(ep("", api_namespace, url=""))) == 2

    asyncio.run(main())


def test_objects_of_all_namespaces_and_the_schema_of_2019(api_server, api_namespace, crds):
    """What kubectl applies elsewhere is found by its object's name, an alpha service by what it means."""
    manifest = f"""
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {{name: {api_namespace}-v1}}
spec: {{payload: ETHERNET, matches: [{{routes: [{{destination_selector: {{app: gateway}}}}]}}]}}
---
apiVersion: networkservicemesh.io/v1alpha1
kind: NetworkService
metadata: {{name: {api_namespace}-alpha}}
spec:
  payload: IP
  matches:
    - match:
      sourceSelector: {{app: firewall}}
      route:
        - destination:
          destinationSelector: {{app: vpn-gateway}}
"""
    api_server.kubectl("-n", api_namespace, "apply", "-f", "-", stdin=manifest)

    async def main():
        async with store_of(api_server, SERVICES, "default") as store:
            found = await store.get(f"{api_namespace}-v1")
            assert found.payload == "ETHERNET"
            alpha = await store.get(f"{api_namespace}-alpha")
            assert dict(alpha.matches[0].source_selector) == {"app": "firewall"}
            assert dict(alpha.matches[0].routes[0].destination_selector) == {"app": "vpn-gateway"}

    asyncio.run(main())


def test_what_the_go_registry_writes(api_server, api_namespace, crds):
    """An object with every field that the Go registry writes is read as it is, and ours looks the same."""
    spec = {
        "name": "go",
        "network_service_names": ["s"],
        "network_service_labels": {"s": {"labels": {"app": "gateway"}}},
        "url": "tcp://10.0.0.1:5001",
        "expiration_time": {"seconds": 4102444800, "nanos": 5},
        "initial_registration_time": {"seconds": 1700000000},
        "path_ids": ["spiffe://k8s.nsm/ns/a/pod/b"],
    }
    go = {
        "apiVersion": "networkservicemesh.io/v1",
        "kind": "NetworkServiceEndpoint",
        "metadata": {"name": "go"},
        "spec": spec,
    }
    api_server.kubectl("-n", api_namespace, "create", "-f", "-", stdin=json.dumps(go))

    async def main():
        async with store_of(api_server, ENDPOINTS, api_namespace) as store:
            read = await store.get("go")
            assert read.network_service_labels["s"].labels["app"] == "gateway"
            assert (read.expiration_time.seconds, read.expiration_time.nanos) == (4102444800, 5)
            assert list(read.path_ids) == spec["path_ids"]
            read = type(read).FromString(read.SerializeToString())
            read.name = "ours"
            await store.put(read)
            said = json.loads(api_server.kubectl("-n", api_namespace, "get", "nse", "ours", "-o", "json"))
            spec["initial_registration_time"]["nanos"] = 0
            assert said["spec"] == {**spec, "name": "ours"}

    asyncio.run(main())


def test_a_name_that_is_none(api_server, api_namespace, crds):
    """A name that no object can have is refused with the server's reason."""

    async def main():
        async with store_of(api_server, ENDPOINTS, api_namespace) as store:
            with pytest.raises(Invalid, match=r"metadata\.name"):
                await store.put(ep("Not_A_Name", "s"))
            assert await store.get("Not_A_Name") is None

    asyncio.run(main())


def test_expired_endpoints_are_collected_by_one(api_server, api_namespace, crds):
    """One of two replicas holds the lease and deletes what is over; what is alive or has no time stays."""

    async def main():
        clock = SystemClock()
        async with store_of(api_server, ENDPOINTS, api_namespace) as store, api_of(api_server) as api:
            one, two = (
                Collector(store, Lease(api, api_namespace, "l", identity, clock), 60.0, clock)
                for identity in ("one", "two")
            )
            tasks = [asyncio.create_task(collector.run()) for collector in (one, two)]
            watch = store.watch(NetworkServiceEndpoint(name="over"))
            now = clock.now()
            # long enough to be seen alive by a loaded machine: what comes with its time over gets a period
            await store.put(ep("over", api_namespace, expiration_time=timestamp(now + 4)))
            await store.put(ep("alive", api_namespace, expiration_time=timestamp(now + 600)))
            await store.put(ep("skewed", api_namespace, expiration_time=timestamp(now - 300)))
            await store.put(ep("timeless", api_namespace))
            assert [deleted for *_, deleted in await take(watch, 2, seconds=30)] == [False, True]
            assert one.collecting != two.collecting
            assert {e.name for e in await store.list(ep("", api_namespace, url=""))} == {
                "alive",
                "skewed",
                "timeless",
            }
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
