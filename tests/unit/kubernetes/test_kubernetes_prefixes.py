"""Which addresses a cluster uses."""

from __future__ import annotations

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.elements.excluded_prefixes import read_prefixes
from nsmesh.kubernetes.prefixes import (
    Source,
    document,
    merged,
    network,
    of_kubeadm,
    of_node,
    of_pod,
    of_service,
)

networks = st.one_of(
    st.builds(
        lambda number, length: ipaddress.ip_network((number, length), strict=False),
        st.integers(0, 2**32 - 1),
        st.integers(0, 32),
    ),
    st.builds(
        lambda number, length: ipaddress.IPv6Network((number, length), strict=False),
        st.integers(0, 2**128 - 1),
        st.integers(0, 128),
    ),
)


@given(wide=st.lists(networks, max_size=8), single=st.lists(networks, max_size=8))
def test_nothing_is_left_out_and_nothing_is_said_twice(wide, single):
    """Each address lies in one of the prefixes; none overlap; order and repetition change nothing."""
    found = [ipaddress.ip_network(text) for text in merged(wide, single)]
    for item in (*wide, *single):
        assert any(item.version == outer.version and item.subnet_of(outer) for outer in found)
    for one, two in itertools.pairwise(found):
        assert one.version != two.version or not one.overlaps(two)
    assert merged([*reversed(wide), *wide], reversed(single)) == tuple(str(item) for item in found)


@given(st.lists(networks, max_size=8))
def test_managers_read_what_is_written(items):
    """The file is what the element of managers reads."""
    prefixes = merged(items, ())
    assert read_prefixes(document(prefixes)) == prefixes


def test_an_address_that_no_cidr_has_takes_its_block_along():
    """So that the next pod there changes nothing."""
    inside, outside, six = network("10.244.1.7"), network("10.9.8.7"), network("fd00::7")
    assert merged([network("10.244.0.0/16")], [inside, outside, six]) == (
        "10.9.8.0/24",
        "10.244.0.0/16",
        "fd00::/64",
    )


def test_objects():
    """What each kind says, and what of it is not meant."""
    node = {
        "spec": {"podCIDR": "10.1.0.0/24"},
        "status": {"addresses": [{"type": "Hostname", "address": "n"}]},
    }
    assert of_node(node) == [network("10.1.0.0/24")]
    assert of_node({}) == []
    pod = {"status": {"podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd00::5"}]}}
    assert set(of_pod(pod)) == {network("10.1.0.5"), network("fd00::5")}
    assert of_pod({**pod, "spec": {"hostNetwork": True}}) == []
    assert of_pod({"status": {**pod["status"], "phase": "Succeeded"}}) == []
    assert of_service({"spec": {"clusterIPs": ["None"]}}) == []
    assert of_service({"spec": {"clusterIPs": ["10.96.0.1"]}}) == [network("10.96.0.1")]
    assert of_kubeadm({}) == of_kubeadm({"data": {"ClusterConfiguration": "[]"}}) == []
    with pytest.raises(ValueError, match="no YAML"):
        of_kubeadm({"data": {"ClusterConfiguration": "{"}})


def test_what_cannot_be_read_leaves_what_was_said():
    """Also through a new list; what is gone from it is gone."""
    news = []
    source = Source("s", lambda item: [network(item["x"])], lambda: news.append(1))

    def item(name, text):
        return {"metadata": {"name": name}, "x": text}

    source.changed(item("a", "10.0.0.0/8"))
    source.changed(item("a", "10.0.0.0/8"))
    assert len(news) == 1
    source.changed(item("a", "nonsense"))
    source.replace([item("a", "nonsense"), item("b", "11.0.0.0/8")], "1")
    assert source.networks == [network("10.0.0.0/8"), network("11.0.0.0/8")]
    source.replace([item("b", "11.0.0.0/8")], "2")
    source.deleted(item("b", ""))
    assert source.networks == []
