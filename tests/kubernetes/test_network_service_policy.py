"""What an API server says of a NetworkService that is wrong, by deploy/helm/policies."""

from __future__ import annotations

import json
import uuid

import pytest
import yaml
from kubernetes_lab import PROJECT, until
from kubernetes_webhook import documented

from nsmesh.kubernetes.codec import API_VERSION, SERVICES
from nsmesh.model.messages import Destination, Match, Metadata, NetworkService

pytestmark = pytest.mark.timeout(120)

POLICIES = PROJECT / "deploy/helm/policies/networkservices.yaml"
PLAIN = {
    "group": "networkservicemesh.io",
    "scope": "Namespaced",
    "names": {"kind": "NetworkService", "plural": "networkservices"},
    "versions": [
        {
            "name": "v1",
            "served": True,
            "storage": True,
            "schema": {
                "openAPIV3Schema": {
                    "type": "object",
                    "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                }
            },
        }
    ],
}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "networkservices.networkservicemesh.io"},
    "spec": PLAIN,
}
"""That of NSM v1: it takes everything, so that the policy alone says what is wrong."""
TO = {"destination_selector": {"app": "firewall"}}


@pytest.fixture(scope="module")
def server(webhook_server):
    """Give an API server with NSM's CRD and the policies."""
    webhook_server.kubectl("apply", "-f", "-", stdin=json.dumps(CRD))
    webhook_server.kubectl("apply", "-f", POLICIES)
    bad = json.dumps(service({"payload": "x"}))
    probe = ("create", "--dry-run=server", "-f", "-")
    until("it is refused", lambda: "no payload" in webhook_server.kubectl(*probe, stdin=bad, check=False))
    yield webhook_server
    webhook_server.kubectl("delete", "-f", POLICIES)
    webhook_server.kubectl("delete", "-f", "-", stdin=json.dumps(CRD))  # ours is applied by its own fields


def service(spec, name="") -> dict:
    made = {"apiVersion": API_VERSION, "kind": "NetworkService", "metadata": {"name": name or new()}}
    return {**made, "spec": spec}


def new() -> str:
    return f"s-{uuid.uuid4().hex[:8]}"


def said(server, *bodies, verb="create") -> str:
    """Make objects; returns what is said of them."""
    whole = {"apiVersion": "v1", "kind": "List", "items": list(bodies)}
    return server.kubectl(verb, "-f", "-", stdin=json.dumps(whole), check=False)


BAD = [
    ({"payloads": "IP"}, "spec.payloads: there is no such field; known are name, payload, matches, path_ids"),
    ({"name": "other"}, "spec.name: leave it out; the name of a network service is that of its object, s-"),
    ({"name": 1}, "spec.name: leave it out"),
    (
        {"payload": "Ethernet"},
        "spec.payload: Ethernet is no payload; write IP (addresses and routes), ETHERNET",
    ),
    ({"payload": 4}, "spec.payload: this is no payload"),
    ({"matches": {"routes": []}}, "spec.matches: write a list of matches"),
    ({"matches": ["all"]}, "spec.matches: write a list of matches"),
    (
        {"matches": [{"routes": [TO]}, {"source_selectors": {}}]},
        "spec.matches[1].source_selectors: there is no such field; known are source_selector, routes,",
    ),
    ({"matches": [{"sourceSelector": {"a": "b"}}]}, "spec.matches[0].sourceSelector: there is no such field"),
    ({"matches": [{"fallthrough": "true"}]}, "fallthrough is true or false, without quotes"),
    ({"matches": [{"metadata": {"label": {}}}]}, "metadata holds labels"),
    ({"matches": [{"metadata": []}]}, "metadata holds labels"),
    ({"matches": [{"routes": TO}]}, "routes is a list"),
    ({"matches": [{"routes": ["x"]}]}, "routes is a list"),
    (
        {"matches": [{"routes": [TO]}, {"routes": [TO, {"destination": {}}]}]},
        "spec.matches[1].routes: destination: there is no such field; known are destination_selector, weight",
    ),
    ({"matches": [{"routes": [{**TO, "weight": -1}]}]}, "weight of a route is a whole number of 0 or more"),
    ({"matches": [{"routes": [{**TO, "weight": "1"}]}]}, "weight of a route is a whole number"),
    ({"matches": [{"source_selector": {"version": 1}}]}, "spec.matches[0]: a selector is label: value"),
    ({"matches": [{}, {"source_selector": "app"}]}, "spec.matches[1]: a selector is label: value"),
    ({"matches": [{"routes": [{"destination_selector": {"a": True}}]}]}, "quote numbers, true and false"),
    ({"matches": [{"metadata": {"labels": {"": "x"}}}]}, "a selector is label: value"),
    (
        {"matches": [{"routes": [{"destination_selector": {"nodeName": "{{ .nodeName }"}}]}]},
        "spec.matches[0]: a template is not closed, and would be taken literally; write {{ .label }}",
    ),
    ({"path_ids": "x"}, "spec.path_ids: leave it to the registry"),
]


def test_a_mistake_is_refused_in_words(server):
    """Each message says where, what, and what to write; nothing is made."""
    bodies = [service(spec) for spec, _ in BAD]
    text = said(server, *bodies)
    assert "resulted in error" not in text
    assert "created" not in text
    for body, (spec, told) in zip(bodies, BAD, strict=True):
        (line,) = [line for line in text.splitlines() if f'"{body["metadata"]["name"]}"' in line]
        assert told in line, spec
    found = server.kubectl("get", "networkservices", "-o", "name")
    assert not [body for body in bodies if body["metadata"]["name"] in found]


def test_the_how_to_shows_what_is_said(server):
    """Word by word."""
    body = service({"payload": "IP", "matches": [{"sourceSelector": {"a": "b"}, "routes": [TO]}]}, "intranet")
    text = server.kubectl("apply", "-f", "-", stdin=json.dumps(body), check=False)
    assert " ".join(text.split()) == documented("kubectl apply -f service.yaml")


def written() -> list[dict]:
    """Return specs as registries write them: as protobuf messages, whatever clients registered."""
    found = [
        NetworkService(name="empty"),
        NetworkService(name="ids", payload="IP", path_ids=["spiffe://t/a", "spiffe://t/b"]),
        NetworkService(
            name="all",
            payload="ETHERNET",
            matches=[
                Match(
                    source_selector={"app": "", "a/b": '{{ .x }}-{{index . "y"}}'},
                    routes=[
                        Destination(destination_selector={}, weight=0),
                        Destination(destination_selector={"nodeName": "{{.nodeName}}"}, weight=4294967295),
                    ],
                    fallthrough=True,
                ),
                Match(metadata=Metadata(labels={"p2p": "true"})),
                Match(metadata=Metadata()),
                Match(),
            ],
        ),
        *(NetworkService(name=one.lower(), payload=one) for one in ("IP", "ETHERNET", "MPLS", "L2TP")),
    ]
    return [SERVICES.spec(one) for one in found]


def test_what_registries_write_passes(server):
    """Also with nulls in place of what is absent, and after it was written a second time."""
    nulls = {"name": "nulls", "payload": "IP", "path_ids": None, "matches": None}
    parts = {"source_selector": None, "metadata": None, "routes": None}
    inner = {"name": "inner", "matches": [parts, {"routes": [{"destination_selector": None}]}]}
    bodies = [service(spec, spec["name"]) for spec in [*written(), nulls, inner]]
    text = said(server, *bodies)
    assert text.count("created") == len(bodies), text
    for body in bodies:
        body["spec"]["path_ids"] = ["spiffe://t/other"]
    assert said(server, *bodies, verb="apply").count("configured") == len(bodies)
    server.kubectl("delete", "networkservices", *(body["metadata"]["name"] for body in bodies))


def test_what_registries_write_passes_our_schema_too(server):
    """Neither the CRD of deploy/crds nor the policies refuse it, with every payload there is."""
    server.kubectl("apply", "-f", PROJECT / "deploy/crds/networkservices.yaml")
    bad = json.dumps(service({"payload": 4}))
    probe = ("create", "--dry-run=server", "-f", "-")
    until(
        "its schema is in use",
        lambda: "must be of type string" in server.kubectl(*probe, stdin=bad, check=False),
    )
    bodies = [service(spec, spec["name"]) for spec in written()]
    text = said(server, *bodies)
    assert text.count("created") == len(bodies), text
    server.kubectl("delete", "networkservices", *(body["metadata"]["name"] for body in bodies))
    server.kubectl("replace", "-f", "-", stdin=json.dumps(CRD))
    until("NSM's is in use", lambda: "this is no payload" in server.kubectl(*probe, stdin=bad, check=False))


def test_the_services_of_all_examples_pass(server):
    """Those that the examples apply in the form of v1, and without a warning."""
    found = []
    for path in sorted((PROJECT / "examples").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            kind = document.get("apiVersion"), document.get("kind")
            if kind == (API_VERSION, "NetworkService"):
                found.append(document)
    assert len(found) > 3
    text = said(server, *(service(one["spec"]) for one in found))
    assert text.count("created") == len(found), text


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"matches": [{"routes": [TO]}]}, "spec.payload is empty"),
        (
            {
                "payload": "IP",
                "matches": [{"source_selector": {"a": "b"}, "routes": [TO]}, {"routes": [TO]}] * 2,
            },
            "spec.matches[1]: it has no source_selector, so it takes every client",
        ),
        ({"payload": "IP", "matches": [{"source_selector": {"a": "b"}}]}, "leads to no endpoint"),
    ],
)
def test_what_was_hardly_meant_is_a_warning(server, spec, told):
    """The object is made, and its author told."""
    text = said(server, service(spec))
    assert "created" in text
    assert told in text


def test_good_services_are_not_warned_about(server):
    """Matches behind one that lets clients through, or behind selectors, are reached."""
    for matches in (
        [],
        [{"routes": [TO], "fallthrough": True}, {"routes": [TO]}],
        [{"source_selector": {"a": "b"}, "routes": [TO]}, {"routes": [TO]}],
    ):
        text = said(server, service({"payload": "IP", "matches": matches}))
        assert "created" in text
        assert "arning" not in text


def test_what_is_bad_already_can_be_labelled_and_deleted(server):
    """An object from before the policy stays in its owner's hands."""
    name = new()
    server.kubectl("delete", "-f", POLICIES)
    body = service({"payload": "x"}, name)
    until("it is made", lambda: "created" in said(server, body))
    server.kubectl("apply", "-f", POLICIES)
    bad = json.dumps(service({"payload": "x"}))
    probe = ("create", "--dry-run=server", "-f", "-")
    until("it is refused", lambda: "no payload" in server.kubectl(*probe, stdin=bad, check=False))
    server.kubectl("label", "networkservices", name, "a=b")
    body["spec"]["payload"] = "y"
    assert "y is no payload" in said(server, body, verb="apply")
    server.kubectl("delete", "networkservices", name)
