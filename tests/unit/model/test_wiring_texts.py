"""Texts of a context: however they are read, they mean what Python's library takes them for."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nsmesh.model.wiring_texts import WiringError, interface_of, parse_interfaces, parse_prefix

NUMBERS = st.one_of(
    st.integers(0, 255).map(str),
    st.sampled_from(["256", "00", "010", "", " 1", "1 ", "+1", "\u0661", "0x1", "1e0"]),
)
LENGTHS = st.one_of(
    st.integers(0, 33).map("/{}".format),
    st.sampled_from(["", "/", "/024", "/-1", "/255.255.255.0", "/0.0.0.255", "/ 8", "/8/8", "/\u0668"]),
)
TEXTS = st.one_of(
    st.builds(
        lambda parts, length: ".".join(parts) + length, st.lists(NUMBERS, min_size=3, max_size=5), LENGTHS
    ),
    st.ip_addresses().map(str),
    st.text(max_size=12),
)


@given(TEXTS)
@example("0.0.0.0/0")
@example("10.1.2.3/31")
@example("1.2.3.4\0/32")
@example("fd00::1/64")
def test_an_interface_is_what_the_library_reads(text):
    """Text, address, its own prefix and network are the library's, and what it refuses is refused."""
    try:
        there = ipaddress.ip_interface(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            interface_of(text)
        return
    found = interface_of(text)
    assert found.text == str(there)
    assert found.ip == there.ip
    assert found.ip_text == str(there.ip)
    assert found.host == f"{there.ip}/{there.ip.max_prefixlen}"
    assert found.network == there.network


@given(TEXTS)
@example("10.1.2.3/8")
def test_a_prefix_is_what_the_library_reads(text):
    """A prefix loses its host bits as in the library; without a length it is refused by name."""
    try:
        there = ipaddress.ip_network(text, strict=False)
    except ValueError:
        there = None
    if there is None or "/" not in text:
        with pytest.raises(WiringError, match="src_routes"):
            parse_prefix(text, "src_routes")
        return
    found = parse_prefix(text, "src_routes")
    assert (found.text, found.network) == (str(there), there)


def test_an_address_without_a_length_is_refused():
    """What has no prefix length is no address of an interface."""
    with pytest.raises(WiringError, match=r"without a prefix length, such as 10\.0\.0\.1/32"):
        parse_interfaces(["10.0.0.1"], "src_ip_addrs")
