"""NetworkService and NetworkServiceEndpoint: the forms of Kubernetes in, messages out, and back."""

from __future__ import annotations

import json

import pytest
import yaml
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.manifest import ManifestErrors, dump, kind_of, load
from nsmesh.model.messages import (
    Destination,
    Match,
    Metadata,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceLabels,
)

V1 = """\
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata:
  name: secure-intranet
  namespace: nsm-system
  labels: {team: net}
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: |
      {"kind":"NetworkService"}
  creationTimestamp: null
  uid: 0a1b
spec:
  payload: ETHERNET
  matches:
    - source_selector:
        app: firewall
      routes:
        - destination_selector:
            app: gateway
            version: 1.10
          weight: 7
      fallthrough: true
    - routes:
        - destination_selector: {nodeName: "{{.nodeName}}"}
        - {}
      metadata:
        labels: {p2p: "true"}
    - metadata: {}
status: {}
"""


def errors_of(text):
    with pytest.raises(ManifestErrors) as caught:
        load(text, "s.yaml")
    return caught.value.errors


def with_spec(spec, version="networkservicemesh.io/v1", kind="NetworkService"):
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec:\n{spec}"


def test_v1():
    """The form that Kubernetes takes, with what Kubernetes adds to it."""
    assert load(V1, "s.yaml") == [
        NetworkService(
            name="secure-intranet",
            payload="ETHERNET",
            matches=[
                Match(
                    source_selector={"app": "firewall"},
                    routes=[
                        Destination(destination_selector={"app": "gateway", "version": "1.10"}, weight=7)
                    ],
                    fallthrough=True,
                ),
                Match(
                    routes=[Destination(destination_selector={"nodeName": "{{.nodeName}}"}), Destination()],
                    metadata=Metadata(labels={"p2p": "true"}),
                ),
                Match(metadata=Metadata()),
            ],
        )
    ]


def test_names():
    """The name in the spec goes before that of the object; without a payload it stays empty."""
    (service,) = load(with_spec("  name: vL3"), "s.yaml")
    assert (service.name, service.payload) == ("vL3", "")
    (service,) = load(
        "apiVersion: networkservicemesh.io/v1\nkind: NetworkService\nmetadata: {name: a}", "s.yaml"
    )
    assert service.name == "a"


@pytest.mark.parametrize(
    "route",
    [
        "- destination:\n          destinationSelector: {app: g}",
        "- destination: {destinationSelector: {app: g}}",
    ],
)
@pytest.mark.parametrize(
    "head",
    [
        "- match:\n      sourceSelector: {app: f}\n      route:",
        "- match:\n        sourceSelector: {app: f}\n        route:",
        "- sourceSelector: {app: f}\n      route:",
    ],
)
def test_v1alpha1(head, route):
    """The form of 2019: fields beside an empty match or destination, or below it."""
    (service,) = load(
        with_spec(
            f"  payload: IP\n  matches:\n    {head}\n        {route}\n", "networkservicemesh.io/v1alpha1"
        ),
        "s",
    )
    assert service == NetworkService(
        name="a",
        payload="IP",
        matches=[
            Match(source_selector={"app": "f"}, routes=[Destination(destination_selector={"app": "g"})])
        ],
    )


def test_v1alpha1_both():
    """Fields beside and below at once contradict each other."""
    text = with_spec("  matches:\n  - match: {route: []}\n    route: []\n", "networkservicemesh.io/v1alpha1")
    assert "below 'match' and beside it" in errors_of(text)[0].what


def test_endpoint():
    """A registered endpoint, with labels and times."""
    text = with_spec(
        """\
  name: nse-1@my.cluster
  network_service_names: [a, b]
  network_service_labels:
    a: {labels: {app: x}}
    b: {}
  url: tcp://10.0.0.1:5001
  expiration_time: {seconds: 1700000000, nanos: 5}
  initial_registration_time: {seconds: 3}
  path_ids: [x]
""",
        kind="NetworkServiceEndpoint",
    )
    assert load(text, "s") == [
        NetworkServiceEndpoint(
            name="nse-1@my.cluster",
            network_service_names=["a", "b"],
            network_service_labels={
                "a": NetworkServiceLabels(labels={"app": "x"}),
                "b": NetworkServiceLabels(),
            },
            url="tcp://10.0.0.1:5001",
            expiration_time=Timestamp(seconds=1_700_000_000, nanos=5),
            initial_registration_time=Timestamp(seconds=3),
            path_ids=["x"],
        )
    ]


@pytest.mark.parametrize(
    ("spec", "place", "says"),
    [
        (
            "  matches:\n  - routes:\n    - destination_selectors: {}",
            (7, 7),
            "'destination_selectors' in spec.matches[0].routes[0] - did you mean 'destination_selector'?",
        ),
        ("  matches:\n  - sourceSelector: {}", (6, 5), "did you mean 'source_selector'?"),
        ("  colour: red", (5, 3), "the fields here are: name, payload, matches, path_ids"),
        ("  payload: ip", (5, 12), "did you mean 'IP'?"),
        ("  payload: CARRIER-PIGEON", (5, 12), "write one of ETHERNET, IP"),
        ("  matches: {}", (5, 12), "must be a list"),
        ("  matches: [x]", (5, 13), "spec.matches[0] must be a mapping"),
        ("  matches: [null]", (5, 13), "spec.matches[0] must be a mapping"),
        ("  matches:\n  - fallthrough: maybe", (6, 18), "must be true or false, but there stands 'maybe'"),
        ("  matches:\n  - fallthrough: yes", (6, 18), "write true or false"),
        ("  matches: [{routes: [{weight: -1}]}]", (5, 32), "whole number from 0 to 4294967295"),
        ("  matches: [{routes: [{weight: x}]}]", (5, 32), "whole number"),
        ("  matches: [{source_selector: {app: true}}]", (5, 37), 'quote it: "true"'),
        ("  matches: [{source_selector: {app: }}]", (5, 36), "has no value"),
        ("  matches: [{source_selector: {app:firewall}}]", (5, 32), "write 'app: firewall', with a blank"),
        ("  matches: [{source_selector: {app: [x]}}]", (5, 37), "must be a text, but there stands a list"),
        ("  matches: [{source_selector: x}]", (5, 31), "must be a mapping"),
        ("  matches: [{metadata: {label: {}}}]", (5, 25), "did you mean 'labels'?"),
        ("  name: 'a b'", (5, 9), "cannot be 'a b'"),
        ("  x", (5, 3), "spec must be a mapping"),
    ],
)
def test_mistakes(spec, place, says):
    """Each mistake has its place, the path of the field and a remedy."""
    (error,) = errors_of(with_spec(spec))
    assert (error.line, error.column) == place
    assert says in str(error)
    assert str(error).startswith(f"s.yaml:{place[0]}:{place[1]}: ")
    assert error.remedy


def test_endpoint_mistakes():
    """Times are mappings, as Kubernetes has them."""
    (error,) = errors_of(with_spec("  expiration_time: 2026-01-01T00:00:00Z", kind="NetworkServiceEndpoint"))
    assert "write {seconds: ..., nanos: ...}" in error.remedy


def test_all_mistakes_at_once():
    """All mistakes are told, in the order of lines."""
    text = with_spec("  payload: x\n  matches:\n  - a: 1\n  - b: 2\n").replace("name: a", "name: A_B")
    found = errors_of(text)
    assert [error.line for error in found] == [3, 5, 7, 8]
    assert "write 'a-b'" in found[0].remedy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: NetworkService", "apiVersion is missing"),
        ("apiVersion: networkservicemesh.io/v1", "kind is missing"),
        ("apiversion: networkservicemesh.io/v1\nkind: NetworkService", "did you mean it by 'apiversion'?"),
        ("apiVersion: networkservicemesh.io/v1\nkind: NetworkServices", "did you mean 'NetworkService'?"),
        ("apiVersion: networkservicemesh.io/v1\nkind: Workload", "write apiVersion: nsmesh/v1"),
        (
            "apiVersion: networkservicemesh.io/v2\nkind: NetworkService",
            "did you mean 'networkservicemesh.io/v1'?",
        ),
        ("apiVersion: v1\nkind: Pod", "unknown kind 'Pod'"),
        ("apiVersion: [x]\nkind: Pod", "apiVersion is missing"),
    ],
)
def test_wrong_kind(text, says):
    """A missing or wrong kind or version is told, with the nearest one."""
    assert any(says in str(error) for error in errors_of(text))


def test_same_name_in_two_namespaces():
    """One name in two namespaces is two objects; in one namespace it is a mistake."""
    other = V1.replace("nsm-system", "other")
    assert len(load(f"{V1}---\n{other}", "s")) == 2
    assert "described twice" in errors_of(f"{V1}---\n{V1}")[0].what


def test_dump_form():
    """A network service is dumped as Kubernetes takes it."""
    (service,) = load(V1, "s")
    data = dump(service)
    assert data["apiVersion"] == "networkservicemesh.io/v1"
    assert data["metadata"] == {"name": "secure-intranet"}
    assert data["spec"]["matches"][0]["routes"] == [
        {"destination_selector": {"app": "gateway", "version": "1.10"}, "weight": 7}
    ]
    assert data["spec"]["matches"][2] == {"metadata": {}}
    assert kind_of(service) == "NetworkService"


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
labels = st.dictionaries(texts, st.one_of(st.just(""), texts), max_size=3)
names = st.from_regex(r"[A-Za-z0-9]([-_.@A-Za-z0-9]{0,20}[A-Za-z0-9])?", fullmatch=True)
routes = st.builds(Destination, destination_selector=labels, weight=st.integers(0, 2**32 - 1))
matches = st.builds(
    lambda metadata, through, **rest: Match(metadata=metadata, **rest, fallthrough=through),
    st.none() | st.builds(Metadata, labels=labels),
    st.booleans(),
    source_selector=labels,
    routes=st.lists(routes, max_size=3),
)
services = st.builds(
    NetworkService,
    name=names,
    payload=st.sampled_from(["", "IP", "ETHERNET"]),
    matches=st.lists(matches, max_size=3),
    path_ids=st.lists(texts, max_size=2),
)
times = st.none() | st.builds(Timestamp, seconds=st.integers(0, 10**10), nanos=st.integers(0, 10**9 - 1))
endpoints = st.builds(
    NetworkServiceEndpoint,
    name=names,
    network_service_names=st.lists(names, max_size=3),
    network_service_labels=st.dictionaries(names, st.builds(NetworkServiceLabels, labels=labels), max_size=2),
    url=st.sampled_from(["", "tcp://10.0.0.1:5001", "unix:///x"]),
    expiration_time=times,
    initial_registration_time=times,
)


@given(st.one_of(services, endpoints))
def test_round_trip(document):
    """What is dumped is read as an equal document, through YAML and through JSON."""
    data = dump(document)
    assert load(json.dumps(data), "j") == [document]
    assert load(yaml.safe_dump(data, allow_unicode=True), "y") == [document]
