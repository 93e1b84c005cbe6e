"""What the chart can do beyond its defaults: the registry on the API server, wires as objects, prefixes."""

from __future__ import annotations

import time

import lab_cluster as lab
import lab_mesh
import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]


def endpoints() -> set[str]:
    """Return the names of all endpoints that are objects of the API server."""
    return {item["metadata"]["name"] for item in lab.objects("networkserviceendpoints", "-A")["items"]}


def test_a_wire_is_an_object(namespace: str, options: None) -> None:
    """It stands in its client's namespace with addresses and path, is its pod's, and goes with the wire."""
    service = f"icmp-{namespace}"
    lab.create(namespace, lab.responder("nse", 2, "172.16.1.100/31", service))
    lab.ready(namespace, "nse")
    lab.create(namespace, lab.client("nsc", 1, f"kernel://{service}/nsm-1"))
    lab.ready(namespace, "nsc")

    def shown() -> list[dict]:
        return lab.objects("networkserviceconnections", "-n", namespace)["items"]

    (wire,) = lab.until("the object", lambda: [one for one in shown() if one.get("status")], 20)
    assert "172.16.1.101/32" in str(wire["status"])
    assert f"nse.{namespace}" in str(wire["status"])
    owner = lab.objects("pod", "nsc", "-n", namespace)["metadata"]["uid"]
    assert [one["uid"] for one in wire["metadata"]["ownerReferences"]] == [owner]
    lab.kubectl("-n", namespace, "delete", "pod", "nsc")
    lab.until("no object", lambda: not shown(), 30)


def test_addresses_that_are_excluded(namespace: str, options: None) -> None:
    """Endpoints skip what the values exclude, and what the cluster uses itself, which nobody told."""
    service = f"excluded-{namespace}"
    lab.create(namespace, lab.responder("nse", 1, "172.16.3.200/30", service))
    lab.create(namespace, lab.responder("nse-2", 1, "10.96.0.0/24", f"{service}-2"))
    lab.ready(namespace, "nse", "nse-2")
    lab.create(namespace, lab.client("nsc", 1, f"kernel://{service}/nsm-1"))
    lab.create(namespace, lab.client("nsc-2", 1, f"kernel://{service}-2/nsm-1"))
    lab.ready(namespace, "nsc")
    assert "172.16.3.203/32" in lab.inside(namespace, "nsc", "ip", "-o", "address", "show", "nsm-1")
    lab.until("the ping", lambda: lab.pings(namespace, "nsc", "172.16.3.200"), 10)

    def said() -> str:
        return lab.kubectl("-n", namespace, "logs", "nsc-2", "-c", "nsc-init", check=False)

    lab.until("the refusal of the subnet of Services", lambda: "10.96.0.0/24" in said(), 30)


def test_two_registries_are_one(namespace: str, options: None) -> None:
    """What is registered at one is found at the other, outlives both, and goes when its owner says so."""
    service = f"icmp-{namespace}"
    replicas = lab.objects("pod", "-n", lab.SYSTEM, "-l", "app=registry")["items"]
    assert len([one for one in replicas if "deletionTimestamp" not in one["metadata"]]) == 2
    lab.create(namespace, lab.responder("nse", 2, "172.16.1.0/24", service, NSM_UNREGISTER_ITSELF="true"))
    lab.ready(namespace, "nse")
    name = f"nse.{namespace}"
    lab.until("the endpoint as an object", lambda: name in endpoints(), 10)
    for replica in replicas:  # each alone serves a Request
        lab.kubectl("-n", lab.SYSTEM, "delete", "pod", replica["metadata"]["name"], "--grace-period=1")
        client = f"nsc-{replica['metadata']['name'][-5:]}"
        lab.create(namespace, lab.client(client, 1, f"kernel://{service}/nsm-1"))
        lab.ready(namespace, client)
        lab.kubectl("-n", namespace, "delete", "pod", client)
        lab_mesh.wait_for_mesh()
    lab.kubectl("-n", lab.SYSTEM, "scale", "deploy/registry", "--replicas=0")
    lab.until("no registry", lambda: not lab.objects("pod", "-n", lab.SYSTEM, "-l", "app=registry")["items"])
    time.sleep(1)
    assert name in endpoints()
    lab.kubectl("-n", lab.SYSTEM, "scale", "deploy/registry", "--replicas=2")
    lab_mesh.wait_for_mesh()
    lab.create(namespace, lab.client("nsc", 1, f"kernel://{service}/nsm-1"))
    lab.ready(namespace, "nsc")
    lab.kubectl("-n", namespace, "delete", "pod", "nsc", "nse")
    lab.until("no endpoint", lambda: name not in endpoints(), 30)


def test_a_service_chooses_its_forwarder(namespace: str, options: None) -> None:
    """A NetworkService's match names a label: of two forwarders on the node the one that has it is used."""
    service = f"chosen-{namespace}"
    label = f"capability-{namespace}"
    lab.create(namespace, lab_mesh.own_forwarder("own-forwarder", 1, f"{label}:true,p2p:true"))
    lab.ready(namespace, "own-forwarder")
    match = {"metadata": {"labels": {label: "true"}}, "routes": [{"destination_selector": {}}]}
    lab.create(namespace, lab_mesh.network_service(service, "ETHERNET", [match]))
    lab.create(namespace, lab.responder("nse", 1, "172.16.4.100/31", service, NSM_REGISTER_SERVICE="false"))
    lab.ready(namespace, "nse")
    lab.create(namespace, lab.client("nsc", 1, f"kernel://{service}/nsm-1"))
    lab.ready(namespace, "nsc")
    lab.until("the ping", lambda: lab.pings(namespace, "nsc", "172.16.4.100"), 10)
    (wire,) = lab.objects("networkserviceconnections", "-n", namespace)["items"]
    assert f"own-forwarder.{namespace}" in str(wire["status"])
