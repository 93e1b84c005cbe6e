"""Workload, Endpoint and Link: what a mesh on one host runs and joins."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.manifest import Endpoint, Link, LinkEnd, ManifestErrors, Workload, dump, load
from nsmesh.model.manifest_records import ANNOTATION, ENDPOINT_TYPES, RESTARTS
from nsmesh.model.nsurl import NetworkServiceUrl
from nsmesh.model.wire import Route

WORKLOAD = """\
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: nsc
  labels: {app: client}
  annotations:
    networkservicemesh.io: kernel://secure-intranet/nsm-1?app=client,kernel://other
spec:
  command: [python3, -m, http.server]
  args: ["8080"]
  env: {PORT: 8080}
  workdir: /tmp
  restart: on-failure
"""
ENDPOINT = """\
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {name: firewall-1}
spec:
  type: firewall
  services: [secure-intranet]
  labels: {app: firewall}
  options:
    mac: 12:34:56:01:02:03
    rules:
    - {allow: tcp, port: 80}
    - drop
    strict: true
    ratio: 0.5
    mode: 0o17
    none:
  payload: IP
"""
LINK = """\
apiVersion: nsmesh/v1
kind: Link
metadata: {name: uplink}
spec:
  ends:
  - of: vpn-gateway
    interface: eth0
    addresses: [10.1.0.1/24, "fd00::1/64"]
    routes:
    - {prefix: 0.0.0.0/0, via: 10.1.0.2}
    - prefix: 10.9.0.0/16
  - {of: intranet, interface: eth0, addresses: [10.1.0.2/24]}
  mtu: 1400
"""


def one_error(text):
    with pytest.raises(ManifestErrors) as caught:
        load(text, "l.yaml")
    (error,) = caught.value.errors
    return error


def changed(text, old, new):
    assert old in text
    return text.replace(old, new)


def test_workload():
    """A workload: name, wishes, process."""
    url = "kernel://secure-intranet/nsm-1?app=client,kernel://other"
    assert load(WORKLOAD, "l") == [
        Workload(
            "nsc",
            (
                NetworkServiceUrl("KERNEL", "secure-intranet", "nsm-1", {"app": "client"}),
                NetworkServiceUrl("KERNEL", "other"),
            ),
            {"app": "client"},
            {ANNOTATION: url},
            ("python3", "-m", "http.server"),
            ("8080",),
            {"PORT": "8080"},
            workdir="/tmp",
            restart="on-failure",
        )
    ]


def test_workload_without_spec():
    """A workload may be a namespace and nothing else."""
    assert load("apiVersion: nsmesh/v1\nkind: Workload\nmetadata: {name: a}\n", "l") == [Workload("a")]


def test_endpoint():
    """An endpoint: type, services, labels, and options as plain data."""
    (endpoint,) = load(ENDPOINT, "l")
    assert endpoint == Endpoint(
        "firewall-1",
        "firewall",
        ("secure-intranet",),
        {"app": "firewall"},
        {
            "mac": "12:34:56:01:02:03",
            "rules": [{"allow": "tcp", "port": 80}, "drop"],
            "strict": True,
            "ratio": 0.5,
            "mode": "0o17",
            "none": None,
        },
        payload="IP",
    )
    assert endpoint.restart == "always"


@pytest.mark.parametrize(
    "kind", [*ENDPOINT_TYPES, "my.module:Class", "./file.py:Class", "/a/b/file.py:Class", "../x/f.py:C"]
)
def test_endpoint_types(kind):
    """Shipped endpoints, classes of modules, and classes of files."""
    assert load(changed(ENDPOINT, "type: firewall", f"type: {kind}"), "l")[0].type == kind


def test_link():
    """A link: two ends with interface, addresses and routes."""
    assert load(LINK, "l") == [
        Link(
            "uplink",
            (
                LinkEnd(
                    "vpn-gateway",
                    "eth0",
                    ("10.1.0.1/24", "fd00::1/64"),
                    (Route("0.0.0.0/0", "10.1.0.2"), Route("10.9.0.0/16")),
                ),
                LinkEnd("intranet", "eth0", ("10.1.0.2/24",)),
            ),
            1400,
        )
    ]


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        (changed(WORKLOAD, "name: nsc", "name: My_Client"), (4, 9), "write 'my-client'"),
        (changed(WORKLOAD, "  name: nsc\n", ""), (4, 3), "metadata.name is missing"),
        (changed(WORKLOAD, "kernel://other", "kernal://other"), (7, 70), "did you mean kernel://?"),
        (changed(WORKLOAD, "/nsm-1", "/interface-too-long"), (7, 53), "has 18 characters"),
        (
            changed(WORKLOAD, "[python3, -m, http.server]", "python3"),
            (9, 12),
            "must be a list, but there stands 'python3'",
        ),
        (changed(WORKLOAD, "  command: [python3, -m, http.server]\n", ""), (9, 3), "spec.command is missing"),
        (changed(WORKLOAD, "PORT: 8080", "PORT: yes"), (11, 15), 'quote it: "yes"'),
        (changed(WORKLOAD, "PORT: 8080", "A=B: x"), (11, 9), "no name of a variable"),
        (changed(WORKLOAD, "on-failure", "onfailure"), (13, 12), "did you mean 'on-failure'?"),
        (changed(WORKLOAD, "workdir: /tmp", "netns: a/b"), (12, 10), "neither a name nor an absolute path"),
        (changed(WORKLOAD, "workdir: /tmp", "netns: a\n  pid: 7"), (13, 8), "both netns and pid"),
        (changed(WORKLOAD, "workdir: /tmp", "pid: 0"), (12, 8), "whole number from 1"),
        (changed(WORKLOAD, "workdir: /tmp", "node: Node_2"), (12, 9), "write 'node-2'"),
        (changed(ENDPOINT, "type: firewall", "type: firewal"), (5, 9), "did you mean 'firewall'?"),
        (changed(ENDPOINT, "type: firewall", "type: teapot"), (5, 9), "write one of icmp-responder"),
        (changed(ENDPOINT, "  type: firewall\n", ""), (5, 3), "spec.type is missing"),
        (changed(ENDPOINT, "  services: [secure-intranet]\n", ""), (5, 3), "spec.services is missing"),
        (changed(ENDPOINT, "[secure-intranet]", "[a b]"), (6, 14), "cannot be 'a b'"),
        (changed(ENDPOINT, "[secure-intranet]", "[a, a]"), (6, 17), "'a' twice"),
        (
            changed(ENDPOINT, "  labels: {app: firewall}", "  label: {app: firewall}"),
            (7, 3),
            "did you mean 'labels'?",
        ),
        ("apiVersion: nsmesh/v1\nkind: Endpoint\nmetadata: {name: a}", (1, 1), "spec is missing"),
        (
            changed(LINK, "interface: eth0\n", "interface: a-very-long-interface\n"),
            (7, 16),
            "kernel takes 15",
        ),
        (changed(LINK, "10.1.0.1/24", "10.1.0.1"), (8, 17), "write for example 10.1.0.1/24"),
        (changed(LINK, "10.1.0.1/24", "10.1.0.300/24"), (8, 17), "no address with a prefix length"),
        (changed(LINK, "10.9.0.0/16", "10.9.1.0/16"), (11, 15), "write 10.9.0.0/16"),
        (changed(LINK, "0.0.0.0/0", "default"), (10, 16), "write 0.0.0.0/0 or ::/0"),
        (changed(LINK, "via: 10.1.0.2", "via: 10.1.0.2/24"), (10, 32), "no IP address"),
        (changed(LINK, "via: 10.1.0.2", 'via: "fd00::2"'), (10, 7), "different IP versions"),
        (changed(LINK, "of: intranet", "of: vpn-gateway"), (6, 3), "both ends are 'eth0' of 'vpn-gateway'"),
        (changed(LINK, "mtu: 1400", "mtu: 20"), (13, 8), "whole number from 68"),
        (
            changed(LINK, "  - {of: intranet, interface: eth0, addresses: [10.1.0.2/24]}\n", ""),
            (6, 3),
            "but 1 are given",
        ),
        (changed(LINK, "of: intranet, ", ""), (12, 5), "spec.ends[1].of is missing"),
    ],
)
def test_mistakes(text, place, says):
    """Each mistake has its place and a remedy."""
    error = one_error(text)
    assert says in str(error)
    assert (error.line, error.column) == place


def test_mistake_in_a_folded_annotation():
    """Where an annotation goes over several lines, the position counts in its text."""
    text = changed(WORKLOAD, "networkservicemesh.io: kernel", "networkservicemesh.io: >-\n      kernel")
    error = one_error(changed(text, "kernel://other", "\n      kernal://other"))
    assert error.line == 7
    assert "character 44: the mechanism" in error.what


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.from_regex("[a-z]{1,5}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
labels = st.dictionaries(texts, texts | st.just(""), max_size=3)
variables = st.dictionaries(st.from_regex("[A-Z_]{1,8}", fullmatch=True), texts, max_size=3)
wishes = st.builds(NetworkServiceUrl, st.just("KERNEL"), names, st.just(""), labels)
workloads = st.builds(
    lambda services, command, **rest: Workload(
        services=tuple(services),
        annotations={ANNOTATION: ",".join(map(str, services))} if services else {},
        command=tuple(command),
        args=("x",) if command else (),
        **rest,
    ),
    st.lists(wishes, max_size=3),
    st.lists(texts, max_size=3),
    name=names,
    labels=labels,
    env=variables,
    pid=st.integers(0, 4_000_000),
    workdir=st.sampled_from(["", "/tmp"]),
    node=st.sampled_from(["", "node1"]),
    restart=st.sampled_from(RESTARTS),
)
endpoints = st.builds(
    Endpoint,
    name=names,
    type=st.sampled_from([*ENDPOINT_TYPES, "a.b:C"]),
    services=st.lists(names, min_size=1, max_size=3, unique=True).map(tuple),
    labels=labels,
    options=st.dictionaries(st.from_regex("[a-z]{1,5}", fullmatch=True), plain, max_size=3),
    env=variables,
    payload=st.sampled_from(["", "IP"]),
    netns=st.sampled_from(["", "blue", "/run/netns/blue"]),
    node=st.sampled_from(["", "node1"]),
    restart=st.sampled_from(RESTARTS),
)
ends = st.builds(
    LinkEnd,
    names,
    st.just("eth0"),
    st.sampled_from([(), ("10.0.0.1/24",), ("fd00::1/64", "10.0.0.2/8")]),
    st.sampled_from([(), (Route("10.0.0.0/8"),), (Route("::/0", "fd00::2"),)]),
)
links = st.builds(
    Link,
    names,
    st.tuples(ends, ends).filter(lambda pair: pair[0].of != pair[1].of),
    st.sampled_from([0, 1400]),
)


@given(st.one_of(workloads, endpoints, links))
def test_round_trip(document):
    """What is dumped is read as an equal record, through YAML and through JSON."""
    data = dump(document)
    assert load(json.dumps(data), "j") == [document]
    assert load(yaml.safe_dump(data, allow_unicode=True), "y") == [document]


def test_annotation_is_made():
    """A workload that was built without its annotation is dumped with it."""
    workload = Workload("a", (NetworkServiceUrl("KERNEL", "svc", "nsm-1"),))
    assert dump(workload)["metadata"]["annotations"] == {ANNOTATION: "kernel://svc/nsm-1"}
