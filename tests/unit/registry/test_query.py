"""Templates of Find (wire contract 1.4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Destination,
    Match,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceLabels,
    NetworkServiceQuery,
)
from nsmesh.model.times import timestamp
from nsmesh.registry.query import (
    ENDPOINT,
    SERVICE,
    content_of,
    own_query,
    services_of,
)

MATCHES = [
    Match(source_selector={"app": "x"}, routes=[Destination(destination_selector={"app": "y"}, weight=3)])
]


def endpoint(**fields) -> NetworkServiceEndpoint:
    labels = {
        name: NetworkServiceLabels(labels=value)
        for name, value in fields.pop("network_service_labels", {}).items()
    }
    return NetworkServiceEndpoint(network_service_labels=labels, **fields)


EP = endpoint(
    name="ep-1",
    network_service_names=["svc-ip", "svc-eth"],
    network_service_labels={"svc-ip": {"app": "y", "v": "1"}, "bare": {}},
    url="tcp://10.77.0.1:7777",
    expiration_time=timestamp(1_795_432_203.378),
    path_ids=["spiffe://test/probe"],
)
SVC = NetworkService(name="svc-ip", payload="IP", matches=MATCHES)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (NetworkService(), True),
        (NetworkService(name="svc-ip"), True),
        (NetworkService(name="svc-"), False),
        (NetworkService(payload="IP"), True),
        (NetworkService(name="svc-ip", payload="ETHERNET"), False),
        (NetworkService(matches=MATCHES), True),
        (NetworkService(matches=[Match(fallthrough=True)]), False),
        (NetworkService(matches=[*MATCHES, Match()]), False),
        (NetworkService(path_ids=["spiffe://other"]), True),
    ],
)
def test_service_templates(template: NetworkService, expected: bool):
    """Name and payload are equal, matches deeply equal, each only where given; path_ids are not looked at."""
    assert SERVICE.matches(template, SVC) is expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (endpoint(), True),
        (endpoint(name="ep-1"), True),
        (endpoint(name="ep-"), False),
        (endpoint(network_service_names=["svc-ip"]), True),
        (endpoint(network_service_names=["svc-eth", "svc-ip"]), True),
        (endpoint(network_service_names=["svc-ip", "zz"]), False),
        (endpoint(url="10.77.0.1:77"), True),
        (endpoint(url="tcp://10.77.0.1:7777/x"), False),
        (endpoint(network_service_labels={"svc-ip": {"app": "y"}}), True),
        (endpoint(network_service_labels={"svc-ip": {"app": "z"}}), False),
        (endpoint(network_service_labels={"svc-ip": {"q": "y"}}), False),
        (endpoint(network_service_labels={"svc-ip": {"q": ""}}), False),
        (endpoint(network_service_labels={"svc-ip": {}}), True),
        (endpoint(network_service_labels={"bare": {}}), True),
        (endpoint(network_service_labels={"svc-eth": {}}), False),
        (endpoint(expiration_time=timestamp(1_795_432_203.999)), True),
        (endpoint(expiration_time=timestamp(1_795_432_204.0)), False),
        (endpoint(initial_registration_time=timestamp(5.0), path_ids=["nobody"]), True),
    ],
)
def test_endpoint_templates(template: NetworkServiceEndpoint, expected: bool):
    """The rules that Go's registry was seen to follow, one by one."""
    assert ENDPOINT.matches(template, EP) is expected


def test_matching_does_not_change_the_entry():
    """Looking for a label must not create it: a protobuf map grows when it is indexed."""
    before = copy_of(EP)
    ENDPOINT.matches(endpoint(network_service_labels={"absent": {"a": "b"}}), EP)
    assert before == EP


@pytest.mark.parametrize(("kind", "entry"), [(SERVICE, SVC), (ENDPOINT, EP)])
def test_a_matcher_keeps_what_it_was_made_of(kind, entry):
    """A watch is not bent by a caller that goes on writing into its template."""
    template = copy_of(entry)
    matches = kind.matcher(template)
    template.name = "other"
    if kind is SERVICE:
        template.matches[0].fallthrough = True
    else:
        template.network_service_labels["svc-ip"].labels["app"] = "other"
        template.network_service_names.append("other")
    assert matches(entry)


WORDS = st.sampled_from(["a", "b", "ab", ""])
ENDPOINTS = st.builds(
    endpoint,
    name=WORDS,
    network_service_names=st.lists(WORDS, max_size=3),
    network_service_labels=st.dictionaries(WORDS, st.dictionaries(WORDS, WORDS, max_size=2), max_size=2),
    url=WORDS,
    expiration_time=st.none() | st.integers(0, 3).map(timestamp),
)


@given(ENDPOINTS)
def test_everything_matches_itself_and_the_empty_template(entry: NetworkServiceEndpoint):
    """An entry used as its own template is found, and the empty template finds it as well."""
    assert ENDPOINT.matches(entry, entry)
    assert ENDPOINT.matches(NetworkServiceEndpoint(), entry)


@given(ENDPOINTS, ENDPOINTS, ENDPOINTS)
def test_matching_is_transitive(first, second, third):
    """A template of a template finds at least what the narrower one finds."""
    if ENDPOINT.matches(first, second) and ENDPOINT.matches(second, third):
        assert ENDPOINT.matches(first, third)


@pytest.mark.parametrize("kind", [SERVICE, ENDPOINT])
def test_kind_makes_and_reads_its_messages(kind):
    """Query and answer hold what was put in; a query without a body reads as the empty template."""
    entry = kind.entry(name="x")
    query = kind.query(entry, watch=True)
    assert kind.template(query) == entry
    assert query.watch
    found = kind.found(entry, deleted=True)
    assert found.deleted
    assert kind.content(found) == content_of(found) == entry
    assert kind.template(type(query)()) == kind.entry()


def test_own_query_asks_for_the_name_alone():
    """The watch on an entry of one's own names it and nothing else."""
    query = own_query(EP, watch=True)
    assert query == NetworkServiceEndpointQuery(
        network_service_endpoint=NetworkServiceEndpoint(name="ep-1"), watch=True
    )
    assert own_query(SVC, watch=False) == NetworkServiceQuery(network_service=NetworkService(name="svc-ip"))


def test_services_are_listed_once():
    """A service that is named twice is indexed once."""
    assert services_of(endpoint(network_service_names=["b", "a", "b"])) == ("b", "a")
