"""Sets of prefixes: what lies in them, as the addresses one by one say."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model import prefix_set
from nsmesh.model.prefix import PrefixPool
from nsmesh.model.prefix_set import PrefixError, PrefixSet

PREFIXES = st.lists(
    st.tuples(st.integers(0, 255), st.integers(24, 32)).map(lambda pair: f"10.0.0.{pair[0]}/{pair[1]}"),
    max_size=8,
)


@given(PREFIXES, st.integers(0, 255))
def test_an_address_lies_in_a_set_where_it_lies_in_one_of_its_prefixes(prefixes, last):
    """Whatever overlaps, touches or has bits behind its mask."""
    address = f"10.0.0.{last}/32"
    networks = [ip_network(text, strict=False) for text in prefixes]
    expected = any(ip_address(address[:-3]) in network for network in networks)
    assert (address in PrefixSet(prefixes)) == expected
    assert "fd00::1" not in PrefixSet(prefixes)


@given(PREFIXES, PREFIXES)
def test_a_pool_gives_out_the_same_whether_a_set_or_a_list_is_excluded(held, excluded):
    """They are two ways to say one thing."""
    del held[4:]
    given_out = []
    for way in (excluded, PrefixSet(excluded)):
        pool = PrefixPool(["10.0.0.0/24"], held)
        try:
            given_out.append([pool.allocate(way) for _ in range(4)])
        except PrefixError as error:
            given_out.append(str(error))
    assert given_out[0] == given_out[1]


def test_what_is_no_prefix_is_refused():
    """When the set is made, and not when it is asked."""
    with pytest.raises(PrefixError, match="no CIDR prefix"):
        PrefixSet(["10.0.0.0/24", "nonsense"])


def test_a_thousand_excluded_prefixes_are_each_read_once(monkeypatch):
    """Nothing is done for each pair of them: a client with many wires excludes them with every Request."""
    read = []
    monkeypatch.setattr(
        prefix_set, "_range", lambda text: read.append(text) or (4, len(read) * 2, len(read) * 2)
    )
    PrefixSet([f"10.0.{number // 250}.{number % 250}/32" for number in range(1000)])
    assert len(read) <= 2000
