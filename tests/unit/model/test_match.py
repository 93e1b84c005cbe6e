"""Selection: every row that the Go implementation was recorded with, and what must hold for any service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.match import is_subset, match_endpoints, match_forwarders
from nsmesh.model.messages import Destination, Match, Metadata, NetworkService, NetworkServiceEndpoint

TABLE = json.loads((Path(__file__).parents[2] / "data" / "selection-table.json").read_text(encoding="utf-8"))
SERVICE = "svc"
# Rows about an endpoint that the request names, or that has expired, are decided before matching.
CASES = [
    case
    for case in TABLE["endpoint_cases"]
    if "network_service_endpoint_name" not in case
    and not any("@expired" in (labels or {}) for labels in case["endpoints"].values())
]


def endpoint(name, labels, service=SERVICE):
    entry = NetworkServiceEndpoint(name=name, network_service_names=[service])
    if labels is not None:
        entry.network_service_labels[service].labels.update(labels)
    return entry


def match_of(data):
    match = Match(source_selector=data.get("source_selector", {}))
    match.fallthrough = data.get("fallthrough", False)
    match.routes.extend(
        Destination(destination_selector=route.get("destination_selector", {}), weight=route.get("weight", 0))
        for route in data.get("routes", [])
    )
    if "metadata" in data:
        match.metadata.CopyFrom(Metadata(labels=data["metadata"].get("labels", {})))
    return match


def service_of(case):
    return NetworkService(name=SERVICE, matches=[match_of(match) for match in case["matches"]])


def recorded_endpoint(name, labels):
    if labels and "@other" in labels:
        return endpoint(name, labels["@other"], service="other")
    return endpoint(name, labels)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['n']}: {case['note']}")
def test_endpoints_as_recorded(case):
    """The candidates are those that the Go forwarder tried, as often as it tried them."""
    entries = [recorded_endpoint(name, labels) for name, labels in case["endpoints"].items()]
    selection = match_endpoints(case["labels"], service_of(case), entries)
    assert sorted(entry.name for entry in selection.candidates) == case["tried"]
    assert sorted(name for name, _ in selection.dropped) == sorted(
        set(case["endpoints"]) - set(case["tried"])
    )
    assert all(why for _, why in selection.dropped)


@pytest.mark.parametrize("case", TABLE["forwarder_cases"], ids=lambda case: f"{case['n']}: {case['note']}")
def test_forwarders_as_recorded(case):
    """The candidates are those that the Go manager tried."""
    forwarders = [endpoint(name, labels, "forwarder") for name, labels in TABLE["forwarders"].items()]
    selection = match_forwarders(case["labels"], service_of(case), forwarders)
    assert sorted(entry.name for entry in selection.candidates) == case["tried"]
    assert all(why for _, why in selection.dropped)


def test_order_is_routes_then_endpoints():
    """Candidates come route by route, within a route in the order of the endpoints."""
    service = service_of(
        {
            "matches": [
                {"routes": [{"destination_selector": {"z": "2"}}, {"destination_selector": {"a": "1"}}]}
            ]
        }
    )
    entries = [
        endpoint("one", {"a": "1"}),
        endpoint("both", {"a": "1", "z": "2"}),
        endpoint("two", {"z": "2"}),
    ]
    selection = match_endpoints({}, service, entries)
    assert [entry.name for entry in selection.candidates] == ["both", "two", "one", "both"]
    assert selection.rule == 0


def test_why_dropped():
    """The reason names the match, what the endpoint has and what was wanted, after rendering."""
    service = service_of(
        {
            "matches": [
                {"source_selector": {"app": "x"}, "routes": [{}]},
                {"routes": [{"destination_selector": {"nodeName": "{{.nodeName}}"}}]},
            ]
        }
    )
    entries = [endpoint("a", {"nodeName": "n1"}), endpoint("b", {"nodeName": "n2"})]
    selection = match_endpoints({"nodeName": "n1"}, service, entries)
    assert selection.rule == 1
    assert selection.dropped == [("b", "match 1: has {nodeName=n2}, but {nodeName=n1} is wanted")]


def test_why_no_match_applies():
    """When no match applies there is no rule, and each endpoint is told what was wanted of the request."""
    service = service_of({"matches": [{"source_selector": {"app": "x"}, "routes": [{}]}]})
    selection = match_endpoints({"app": "y"}, service, [endpoint("a", {})])
    assert (selection.candidates, selection.rule) == ([], None)
    assert "{app=y}: {app=x} is wanted" in selection.dropped[0][1]


def test_input_is_not_changed():
    """Matching an endpoint without labels leaves it without labels."""
    bare = NetworkServiceEndpoint(name="bare")
    match_endpoints({}, service_of({"matches": [{"routes": [{"destination_selector": {"a": "b"}}]}]}), [bare])
    match_forwarders({}, service_of({"matches": [{"routes": [{}]}]}), [bare])
    assert bare == NetworkServiceEndpoint(name="bare")


def test_forwarders_under_another_name():
    """The service that forwarders register under can be another one."""
    forwarder = endpoint("f", {"p2p": "true"}, "my-forwarder")
    service = service_of({"matches": [{"routes": [{}]}]})
    assert match_forwarders({}, service, [forwarder]).candidates == []
    assert match_forwarders({}, service, [forwarder], "my-forwarder").candidates == [forwarder]


labels = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "1", "2", "{{.a}}"]))
routes = st.lists(st.fixed_dictionaries({"destination_selector": labels}), max_size=3)
matches = st.fixed_dictionaries(
    {"source_selector": labels, "routes": routes},
    optional={"fallthrough": st.booleans(), "metadata": st.fixed_dictionaries({"labels": labels})},
)
services = st.lists(matches, max_size=4).map(lambda found: service_of({"matches": found}))


@given(labels, services, st.lists(labels, max_size=4))
def test_selection_adds_up(request_labels, service, endpoint_labels):
    """Each endpoint is a candidate or dropped, never both; the rule is the first that fits and finds."""
    entries = [endpoint(str(number), found) for number, found in enumerate(endpoint_labels)]
    selection = match_endpoints(request_labels, service, entries)
    kept = {entry.name for entry in selection.candidates}
    dropped = [name for name, _ in selection.dropped]
    assert sorted([*kept, *dropped]) == [entry.name for entry in entries]
    if selection.rule is None:
        assert not service.matches or not kept
        return
    rule = service.matches[selection.rule]
    assert is_subset(request_labels, rule.source_selector, request_labels)
    assert kept or not rule.fallthrough
    for earlier in service.matches[: selection.rule]:
        fits = is_subset(request_labels, earlier.source_selector, request_labels)
        assert not fits or earlier.fallthrough


@given(labels, labels)
def test_subset_of_itself(some, request_labels):
    """Any labels contain themselves literally, and nothing is contained in everything."""
    assert is_subset(some, some, request_labels)
    assert is_subset(some, {}, request_labels)
