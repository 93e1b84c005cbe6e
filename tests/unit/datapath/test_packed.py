import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Invalid
from nsmesh.datapath.packed import parse_mac, parse_network, parse_prefix


@given(st.ip_addresses(), st.data())
def test_networks_have_no_host_bits(address, data):
    """A network's bits behind the prefix length are zero, those before are kept."""
    length = data.draw(st.integers(0, address.max_prefixlen))
    found = parse_network(f"{address}/{length}")
    expected = ipaddress.ip_network(f"{address}/{length}", strict=False)
    assert found == (expected.network_address.packed, length)
    assert found.family == (socket.AF_INET if address.version == 4 else socket.AF_INET6)


@pytest.mark.parametrize(
    "text",
    ["10.0.0.1/33", "10.0.0.1/", "10.0.0.1/-1", "10.0.0.1/٣", "fd00::1/129", "10.0.0", "", "x/8", "1/8\0"],
)
def test_bad_prefixes_are_refused(text):
    """What is no CIDR is Invalid, never another exception."""
    with pytest.raises(Invalid):
        parse_prefix(text)


@pytest.mark.parametrize("text", ["", "02:00", "01:00:00:00:00:01", "00:00:00:00:00:00", "zz:00:00:00:00:01"])
def test_bad_macs_are_refused(text):
    """A MAC is six bytes and belongs to one station."""
    with pytest.raises(Invalid):
        parse_mac(text)
