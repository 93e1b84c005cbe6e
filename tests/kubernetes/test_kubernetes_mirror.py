"""The mirror of a node's wires, on a real API server."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from kubernetes_stores import api_of, apply_crds, eventually, kubeconfig_with

from nsmesh.chains.roles import running_nsmgr
from nsmesh.chains.runtime import runtime_of
from nsmesh.chains.settings import NsmgrSettings
from nsmesh.core.scope import Scope
from nsmesh.elements.monitor import Monitor
from nsmesh.kubernetes.mirror import ConnectionMirror
from nsmesh.model.messages import Connection, ConnectionEvent, ConnectionEventType, State

pytestmark = pytest.mark.timeout(120)
UPDATE, DELETE = ConnectionEventType.UPDATE, ConnectionEventType.DELETE


def connection(number: int = 0, **more) -> Connection:
    """Return a connection as a manager knows it."""
    made = Connection(
        id=f"m-{number}", network_service="intranet", network_service_endpoint_name="nse", **more
    )
    for name in ("pod", "nsmgr", "forwarder", "nse"):
        made.path.path_segments.add(name=name, id=f"{name}-{number}")
    made.path.index = 1
    made.mechanism.type = "KERNEL"
    made.mechanism.parameters["name"] = f"nsm-{number}"
    made.context.MTU = 1450
    made.context.ip_context.src_ip_addrs.append("10.0.0.1/32")
    return made


def event(kind, *connections: Connection) -> ConnectionEvent:
    """Return an event about them."""
    return ConnectionEvent(type=kind, connections={item.id: item for item in connections})


@asynccontextmanager
async def mirror_of(server, namespace, node, **options):
    """Give a running mirror that writes to ``namespace``."""
    async with api_of(server) as api, Scope("test") as scope:
        api.namespace = namespace
        async with ConnectionMirror(api, node, **options).running(scope) as mirror:
            await mirror.reflector.synced.wait()
            yield mirror


def shown(server, namespace) -> list[dict]:
    """Return the objects that are there."""
    text = server.kubectl("-n", namespace, "get", "nsc", "-o", "json", "--show-managed-fields")
    return json.loads(text)["items"]


async def seen(server, namespace, probe, limit=20):
    """Wait until ``probe`` is true of the objects that are there; return them."""
    async with asyncio.timeout(limit):
        while not probe(found := await asyncio.to_thread(shown, server, namespace)):  # noqa: ASYNC110 - a server
            await asyncio.sleep(0.05)
    return found


def test_a_wire_is_shown_with_its_owner_and_goes(api_server, api_namespace):
    """All that kubectl shows is there; the pod owns it; what changes is written, what does not is not."""
    apply_crds(api_server)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    api_server.kubectl("-n", api_namespace, "create", "serviceaccount", "default", check=False)
    api_server.kubectl("-n", api_namespace, "create", "-f", "-", stdin=json.dumps(pod))

    async def main():
        async with mirror_of(api_server, api_namespace, api_namespace) as mirror:
            mirror.take(event(UPDATE, connection()))
            (item,) = await seen(api_server, api_namespace, lambda found: found and "status" in found[0])
            assert item["spec"] == {
                "client": "pod",
                "network_service": "intranet",
                "connection_id": "pod-0",
                "interface": "nsm-0",
            }
            assert item["status"] == {
                "endpoint": "nse",
                "path": ["pod", "nsmgr", "forwarder", "nse"],
                "mechanism": "KERNEL",
                "addresses": ["10.0.0.1/32"],
                "mtu": 1450,
                "state": "Up",
                "reason": "",
            }
            (owner,) = item["metadata"]["ownerReferences"]
            assert (owner["kind"], owner["name"]) == ("Pod", "pod")
            assert {entry["manager"] for entry in item["metadata"]["managedFields"]} == {"nsmesh-nsmgr"}
            writes = mirror.writes
            mirror.take(event(UPDATE, connection()))
            mirror.take(event(UPDATE, connection(state=State.DOWN)))
            (item,) = await seen(
                api_server, api_namespace, lambda found: found[0]["status"]["state"] == "Down"
            )
            assert "asking for it again" in item["status"]["reason"]
            assert mirror.writes == writes + 1
            mirror.take(event(DELETE, connection()))
            await seen(api_server, api_namespace, lambda found: not found)
            mirror.take(event(UPDATE, connection()))
            await seen(api_server, api_namespace, lambda found: found and "status" in found[0])
            delete = ("-n", api_namespace, "delete", "--now")
            await asyncio.to_thread(api_server.kubectl, *delete, "pod", "pod")
            await asyncio.to_thread(api_server.kubectl, *delete, "nsc", item["metadata"]["name"])
            writes = mirror.writes
            await seen(api_server, api_namespace, lambda found: not found)
            await asyncio.sleep(1)  # as if the collector of garbage had done it: it does not come back
            assert mirror.writes == writes

    asyncio.run(main())


def test_what_somebody_did_by_hand_is_put_right(api_server, api_namespace):
    """A deleted object comes back, an edited status too; another interface is another object."""
    apply_crds(api_server)
    patch = json.dumps({"status": {"state": "Refused", "reason": "by hand"}})

    async def main():
        async with mirror_of(api_server, api_namespace, api_namespace) as mirror:
            mirror.take(event(UPDATE, connection()))
            (item,) = await seen(api_server, api_namespace, lambda found: found and "status" in found[0])
            name = item["metadata"]["name"]
            await asyncio.to_thread(
                api_server.kubectl,
                *("-n", api_namespace, "patch", "nsc", name, "--subresource=status", "--type=merge"),
                *("-p", patch),
            )
            await seen(api_server, api_namespace, lambda found: found[0]["status"]["state"] == "Up")
            await asyncio.to_thread(api_server.kubectl, "-n", api_namespace, "delete", "nsc", name)
            (again,) = await seen(api_server, api_namespace, lambda found: found and "status" in found[0])
            assert again["metadata"]["uid"] != item["metadata"]["uid"]
            assert again["status"] == item["status"]
            moved = connection()
            moved.mechanism.parameters["name"] = "other"
            mirror.take(event(UPDATE, moved))
            (item,) = await seen(
                api_server,
                api_namespace,
                lambda found: found and found[0]["spec"]["interface"] == "other" and "status" in found[0],
            )
            writes = mirror.writes
            await asyncio.sleep(0.5)  # its predecessor's end is no news
            assert mirror.writes == writes

    asyncio.run(main())


def test_a_manager_that_starts_again(api_server, api_namespace):
    """What its clients ask for again keeps its object; the rest goes after a while; others' stay."""
    apply_crds(api_server)

    async def main():
        async with mirror_of(api_server, api_namespace, f"{api_namespace}-a") as one:
            one.take(event(UPDATE, connection(0), connection(1)))
            before = await seen(
                api_server, api_namespace, lambda found: [i for i in found if "status" in i][1:]
            )
        other_connection = connection(2)
        async with (
            mirror_of(api_server, api_namespace, f"{api_namespace}-b") as other,
            mirror_of(api_server, api_namespace, f"{api_namespace}-a", grace=3) as two,
        ):
            other.take(event(UPDATE, other_connection))
            two.take(event(UPDATE, connection(0)))
            await seen(api_server, api_namespace, lambda found: len(found) == 3)
            after = await seen(api_server, api_namespace, lambda found: len(found) == 2)
            names = {item["spec"]["connection_id"]: item["metadata"]["uid"] for item in after}
            assert set(names) == {"pod-0", "pod-2"}
            assert names["pod-0"] in {item["metadata"]["uid"] for item in before}
            assert two.writes == 1

    asyncio.run(main())


def test_what_happened_while_the_server_was_away(own_api_server):
    """Nothing is lost and nothing is written twice: afterwards it shows what is then."""
    server = own_api_server
    apply_crds(server)

    async def main():
        async with mirror_of(server, "default", "node") as mirror:
            mirror.take(event(UPDATE, connection(0), connection(1)))
            await seen(server, "default", lambda found: [i for i in found if "status" in i][1:])
            command = await asyncio.to_thread(server.stop_api)
            await eventually("noticed", lambda: mirror.reflector.trouble)
            mirror.take(event(DELETE, connection(0)))
            mirror.take(event(UPDATE, connection(1, state=State.DOWN), connection(2)))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.start_api, command)
            await seen(
                server,
                "default",
                lambda found: (
                    {i["spec"]["connection_id"]: i.get("status", {}).get("state") for i in found}
                    == {"pod-1": "Down", "pod-2": "Up"}
                ),
                limit=40,
            )

    asyncio.run(main())


def test_a_manager_shows_what_passes_it(api_server, api_namespace, tmp_path, monkeypatch):
    """The role itself, with its setting: a client's wire is there once its Request was answered, and goes."""
    apply_crds(api_server)
    monkeypatch.setenv(
        "KUBECONFIG", str(kubeconfig_with(api_server, api_namespace, tmp_path, everywhere=RULES))
    )
    settings = NsmgrSettings(
        name="nsmgr-1",
        node_name=api_namespace,
        pod_name="nsmgr-pod",
        listen_on=(f"unix://{tmp_path}/nsmgr.sock",),
        registry_url=f"unix://{tmp_path}/registry.sock",
        mirror_connections=True,
        registry_server_policies=(),
        registry_client_policies=(),
    )

    async def main():
        async with runtime_of(settings, 1.0) as held, running_nsmgr(settings, held) as manager:
            hub = next(element for element in manager.server.elements if isinstance(element, Monitor)).hub
            hub.put(connection(), "")
            (item,) = await seen(api_server, api_namespace, lambda found: found and "status" in found[0])
            assert item["metadata"]["labels"] == {"networkservicemesh.io/node": api_namespace}
            hub.mark("m-0", State.DOWN)
            await seen(api_server, api_namespace, lambda found: found[0]["status"]["state"] == "Down")
            hub.drop("m-0")
            await seen(api_server, api_namespace, lambda found: not found)

    asyncio.run(main())


RULES = [
    {
        "apiGroups": ["networkservicemesh.io"],
        "resources": ["networkserviceconnections"],
        "verbs": ["list", "watch", "create", "patch", "delete"],
    },
    {
        "apiGroups": ["networkservicemesh.io"],
        "resources": ["networkserviceconnections/status"],
        "verbs": ["patch"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
]
"""What docs/reference/kubernetes-rbac.md says of the mirror."""
