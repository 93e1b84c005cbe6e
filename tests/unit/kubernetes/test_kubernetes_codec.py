"""Entries as objects and back, and the CRDs against the messages."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid
from nsmesh.kubernetes.codec import ENDPOINTS, SERVICES
from nsmesh.model.messages import NetworkServiceEndpoint, NetworkServiceLabels

CRDS = Path(__file__).parents[3] / "deploy/crds"
META = {"name": "obj", "namespace": "ns"}
texts = st.text(max_size=8)


@given(
    name=st.text(min_size=1, max_size=8),
    services=st.lists(texts, max_size=3),
    labels=st.dictionaries(texts, st.dictionaries(texts, texts, max_size=2), max_size=2),
    seconds=st.integers(0, 2**33),
    nanos=st.integers(0, 999_999_999),
)
def test_an_endpoint_comes_back_as_it_went(name, services, labels, seconds, nanos):
    """Each entry is its object's spec and back again."""
    entry = NetworkServiceEndpoint(name=name, network_service_names=services, url="tcp://h:1", path_ids=["x"])
    for service, pairs in labels.items():
        entry.network_service_labels[service].CopyFrom(NetworkServiceLabels(labels=pairs))
    entry.expiration_time.seconds, entry.expiration_time.nanos = seconds, nanos
    entry.expiration_time.SetInParent()
    assert ENDPOINTS.entry({"metadata": META, "spec": ENDPOINTS.spec(entry)}) == entry


@pytest.mark.parametrize(
    "spec",
    [
        [],
        "text",
        {"url": 5},
        {"network_service_names": {"a": 1}},
        {"expiration_time": "tomorrow"},
        {"expiration_time": {"seconds": "x"}},
        {"expiration_time": {"seconds": 2**80}},
        {"network_service_labels": {"s": 1}},
    ],
)
def test_nonsense_is_named(spec):
    """What cannot be read is told by name and place."""
    with pytest.raises(Invalid, match="obj in namespace ns cannot be read"):
        ENDPOINTS.entry({"metadata": META, "spec": spec})


@pytest.mark.parametrize("spec", [{}, None])
def test_an_object_without_a_spec_has_its_own_name(spec):
    """As kubectl makes it."""
    assert ENDPOINTS.entry({"metadata": META, "spec": spec}).name == "obj"


@pytest.mark.parametrize("resource", [SERVICES, ENDPOINTS], ids=lambda resource: resource.plural)
def test_the_crd_knows_each_field_of_the_message(resource):
    """The schema of v1 has the fields of the protobuf message, in their spelling, and no other."""
    crd = yaml.safe_load((CRDS / f"{resource.plural}.yaml").read_text())
    (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(spec["properties"]) == set(resource.kind.entry.DESCRIPTOR.fields_by_name)
    assert crd["spec"]["names"]["kind"] == resource.name


def test_no_two_resources_share_a_short_name():
    """``kubectl get nsc`` means one thing."""
    names = [
        short
        for file in CRDS.glob("*.yaml")
        for short in yaml.safe_load(file.read_text())["spec"]["names"]["shortNames"]
    ]
    assert len(names) == len(set(names))
