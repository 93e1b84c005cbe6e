"""Services as users write them: an endpoint that registers its service leaves them as they are."""

from __future__ import annotations

import asyncio
import json

import pytest
from kubernetes_stores import apply_crds, eventually, store_of

from nsmesh.kubernetes.codec import SERVICES
from nsmesh.model.messages import Destination, Match, NetworkService

OWNER = "spiffe://td/ns/a/pod/nse"


@pytest.fixture(scope="session")
def crds(api_server):
    apply_crds(api_server)


def service(name: str, app: str = "", *owners: str) -> NetworkService:
    """Return a service as it is registered, with one match that asks for an app, or without matches."""
    routes = [Destination(destination_selector={"app": app})]
    matches = [Match(routes=routes)] if app else []
    return NetworkService(name=name, payload="IP", matches=matches, path_ids=owners)


def apps(entry: NetworkService) -> list[str]:
    return [route.destination_selector["app"] for match in entry.matches for route in match.routes]


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "not-seen-yet"])
def test_a_user_s_yaml_wins(api_server, api_namespace, crds, seen):
    """Who registers it without matches gets what was applied, and nothing of the object changes."""
    match = {"routes": [{"destination_selector": {"app": "firewall"}}]}
    item = {
        "apiVersion": "networkservicemesh.io/v1",
        "kind": "NetworkService",
        "metadata": {"name": "mine"},
        "spec": {"payload": "ETHERNET", "matches": [match]},
    }

    def shown() -> dict:
        return json.loads(api_server.kubectl("-n", api_namespace, "get", "netsvc", "mine", "-o", "json"))

    async def main():
        async with store_of(api_server, SERVICES, api_namespace) as store:
            api_server.kubectl("-n", api_namespace, "apply", "-f", "-", stdin=json.dumps(item))
            before = shown()
            if seen:  # else the write itself meets it: the view has not heard of it
                await eventually("seen", lambda: store.view.held(api_namespace, "mine"))
            answer = await store.put(service("mine", "", OWNER))
            assert shown() == before
            assert (answer.payload, apps(answer), list(answer.path_ids)) == (
                "ETHERNET",
                ["firewall"],
                [OWNER],
            )
            assert apps(await store.put(service("mine", "gateway", OWNER))) == ["gateway"]
            assert shown()["spec"]["payload"] == "IP"

    asyncio.run(main())


def test_matches_stay_at_a_service_that_is_registered_again(api_server, api_namespace, crds):
    """Its owner may change them to others; one who says none, as after a restart, leaves those there are."""

    async def main():
        async with store_of(api_server, SERVICES, api_namespace) as store:
            await store.put(service("ours", "one", OWNER))
            assert apps(await store.put(service("ours", "", OWNER))) == ["one"]
            await store.put(service("ours", "two", OWNER))
            await store.put(service("ours", "", OWNER))
            said = json.loads(api_server.kubectl("-n", api_namespace, "get", "netsvc", "ours", "-o", "json"))
            assert said["spec"]["matches"][0]["routes"][0]["destination_selector"] == {"app": "two"}

    asyncio.run(main())
