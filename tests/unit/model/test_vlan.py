"""Services that are VLANs, networks on them, and the interfaces that lead there: as NSM writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model import vlan
from nsmesh.model.vlan import Bridge, Interface, VlanService, parse_services, parse_subnets, parse_uplinks


def test_services_are_written_as_in_nsm():
    """Name, tag (decimal or 0x), way, labels and a domain that means nothing; several with commas."""
    text = (
        "finance { vlan: 100; via: gw-1; domain: x; labels: a=b&c=d }, hr{via:gw 2;vlan:0x10;}, raw {via: g}"
    )
    assert parse_services(text) == [
        VlanService("finance", "gw-1", 100, {"a": "b", "c": "d"}),
        VlanService("hr", "gw 2", 16),
        VlanService("raw", "g", 0),
    ]
    assert parse_services("finance { vlan: 100; via: gw-1 }")[0].domain == ("gw-1", 100)
    assert parse_services("") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("finance", "is not NAME"),
        ("finance { via: g } x", "is not NAME"),
        ("{ via: g }", "has no name"),
        ("finance { vlan: 100 }", "has no via"),
        ("finance { via: g; vlan: 4095 }", "no number from 0 to 4094"),
        ("finance { via: g; vlan: -1 }", "no number from 0 to 4094"),
        ("finance { via: g; vlan: many }", "no number from 0 to 4094"),
        ("finance { via: g; tag }", "not KEY: VALUE"),
        ("finance { via: g; tag: 1 }", "has tag; there are domain, vlan, via, labels"),
        ("finance { via: g; labels: a }", "labels that are not a=b&c=d"),
    ],
)
def test_a_service_that_is_none_is_refused(text, says):
    """With its name and what is wrong."""
    with pytest.raises(ValueError, match=says):
        parse_services(text)


@given(st.integers(0, vlan.MOST), st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True))
def test_every_tag_is_read_as_it_is_written(tag, via):
    """All that exist, and no other."""
    (service,) = parse_services(f"s {{ vlan: {tag}; via: {via} }}")
    assert (service.vlan, service.via) == (tag, via)


def test_networks_are_given_without_their_own_addresses():
    """The network's and the broadcast address belong to nobody; of IPv6 the first is every router's."""
    four, six = parse_subnets(["192.0.2.0/29", "2001:db8::/126"])
    pool = four.pool()
    assert [pool.allocate() for _ in range(6)] == [f"192.0.2.{number}/32" for number in range(1, 7)]
    with pytest.raises(ValueError, match="no free"):
        pool.allocate()
    assert six.pool().allocate() == "2001:db8::1/128"
    (pair,) = parse_subnets(["192.0.2.0/31"])
    assert pair.pool().allocate() == "192.0.2.0/32"


def test_ranges_are_of_one_network():
    """Their addresses alone are given; the network has the length."""
    (subnet,) = parse_subnets(["10.0.0.5-10.0.0.6/24; 10.0.0.9-10.0.0.9/24"])
    pool = subnet.pool()
    assert [pool.allocate() for _ in range(3)] == ["10.0.0.5/32", "10.0.0.6/32", "10.0.0.9/32"]
    assert subnet.network.prefixlen == 24


@pytest.mark.parametrize(
    ("items", "says"),
    [
        (["10.0.0.0/24", "10.1.0.0/24"], "more than one network of an IP version"),
        (["10.0.0.1"], "no prefix length"),
        (["10.0.0.9-10.0.0.5/24"], "no range of 10.0.0.0/24"),
        (["10.0.1.1-10.0.0.5/24"], "no range of 10.0.0.0/24"),
        (["10.0.0.1-10.0.0.5/24;10.0.1.1-10.0.1.5/24"], "different networks"),
        (["10.0.0.1-10.0.0.5/24;10.0.0.5-10.0.0.9/24"], "addresses in common"),
        (["10.0.0.0/24;10.0.1.0/24"], "among ranges"),
        (["a-b/24"], "a"),
    ],
)
def test_a_network_that_is_none_is_refused(items, says):
    """Each mistake by its name."""
    with pytest.raises(ValueError, match=says):
        parse_subnets(items)


def test_interfaces_are_found_by_via():
    """In the form of NSM's device selector files; several ways may lead through one interface."""
    document = {
        "interfaces": [
            {"name": "eth1", "matches": [{"labelSelector": [{"via": "gw-1"}, {"via": "gw-2"}]}]},
            {"name": "eth2", "matches": [{"labelSelector": [{"via": "gw-3"}]}]},
        ]
    }
    first, second = Interface("eth1"), Interface("eth2")
    assert parse_uplinks(document) == {"gw-1": first, "gw-2": first, "gw-3": second}


def test_bridges_stand_beside_interfaces_or_alone():
    """As NSM writes them, also with the bridge that an interface is put into; an empty list is none."""
    document = {
        "interfaces": [{"name": "eth1", "bridge": "br0", "matches": [{"labelSelector": [{"via": "gw-0"}]}]}],
        "bridges": [{"name": "br-data", "matches": [{"labelSelector": [{"via": "gw-1"}]}]}],
    }
    bridge = Bridge("br-data")
    assert parse_uplinks(document) == {"gw-0": Interface("eth1"), "gw-1": bridge}
    assert parse_uplinks({**document, "interfaces": []}) == {"gw-1": bridge}
    assert parse_uplinks({"bridges": document["bridges"]}) == {"gw-1": bridge}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (None, "no list of interfaces or bridges"),
        ({"interfaces": [], "bridges": None}, "no list of interfaces or bridges"),
        ({"bridges": "br-data"}, "the file has no list of bridges"),
        ({"bridges": [{"name": ""}]}, "has no name, and is one of the bridges"),
        ({"bridges": [{"name": "br-data"}]}, "bridge br-data has no list of matches"),
        ({"interfaces": ["eth1"]}, "'eth1' has no name, and is one of the interfaces"),
        ({"interfaces": [{"name": "eth1"}]}, "eth1 has no list of matches"),
        ({"interfaces": [{"name": "eth1", "matches": [{}]}]}, "eth1 has no list of labelSelector"),
        ({"interfaces": [{"name": "e", "matches": [{"labelSelector": [{}]}]}]}, "labelSelector without via"),
        (
            {"interfaces": [{"name": n, "matches": [{"labelSelector": [{"via": "g"}]}]} for n in "ab"]},
            "via g leads to both interface a and interface b",
        ),
        (
            {
                "interfaces": [{"name": "a", "matches": [{"labelSelector": [{"via": "g"}]}]}],
                "bridges": [{"name": "a", "matches": [{"labelSelector": [{"via": "g"}]}]}],
            },
            "via g leads to both interface a and bridge a",
        ),
    ],
)
def test_a_selector_that_is_none_is_refused(document, says):
    """With the interface and what it lacks."""
    with pytest.raises(ValueError, match=says):
        parse_uplinks(document)
