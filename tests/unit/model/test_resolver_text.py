"""The text of a resolver file: the name servers of wires before those that stood there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.messages import DNSConfig
from nsmesh.model.resolver_text import HEADER, is_domain, is_server, original, servers, with_wires

POD = "# by hand\nnameserver 10.96.0.10\nsearch ns.svc.cluster.local cluster.local\noptions ndots:5\n"
WIRE = DNSConfig(dns_server_ips=["172.16.0.53", "fd00::53"], search_domains=["red.example"])


def read(text):
    """Return what a resolver reads: comments mean nothing."""
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def test_wires_come_first_and_options_stay():
    """A resolver asks the wires' servers first, searches their domains first, and keeps its options."""
    assert read(with_wires(POD, [WIRE])) == [
        "nameserver 172.16.0.53",
        "nameserver fd00::53",
        "nameserver 10.96.0.10",
        "search red.example ns.svc.cluster.local cluster.local",
        "options ndots:5",
    ]


@given(st.text(st.characters(codec="utf-8")))
def test_any_original_comes_back_to_the_byte(before):
    """Also one without a last line end, without lines, or with what nobody expects in such a file."""
    before = before.removeprefix(HEADER)
    assert original(before) == before
    text = with_wires(before, [WIRE])
    assert original(text) == before
    assert original(text + "\n\n\n") == before
    assert with_wires(original(text), []) == before


def test_each_server_and_domain_stands_once():
    """Two wires to one service, and a domain that the pod searches already, are not doubled."""
    same = DNSConfig(dns_server_ips=["10.96.0.10"], search_domains=["cluster.local"])
    text = with_wires(POD, [WIRE, WIRE, same])
    assert servers(text) == ["172.16.0.53", "fd00::53", "10.96.0.10"]
    assert "search red.example cluster.local ns.svc.cluster.local" in read(text)


def test_a_domain_line_is_a_list_of_one():
    """resolv.conf(5): search and domain exclude each other, the last wins; so there is one line then."""
    assert read(with_wires("search a b\ndomain c\n", [WIRE])) == [
        "nameserver 172.16.0.53",
        "nameserver fd00::53",
        "search red.example c",
    ]


@pytest.mark.parametrize(
    "text", ["", "host.example", "10.0.0.1 10.0.0.2", "10.0.0.1\noptions debug", "fe80::1%a b"]
)
def test_what_is_no_address_never_gets_into_the_file(text):
    """An endpoint cannot write lines of its own."""
    assert not is_server(text)
    assert with_wires(POD, [DNSConfig(dns_server_ips=[text])]) == POD


@pytest.mark.parametrize(
    "text", ["", "a b", "a\nnameserver 10.6.6.6", "a\n", "-a", "ä.example", "#a", "a" * 300]
)
def test_what_is_no_domain_never_gets_into_the_file(text):
    """Likewise."""
    assert not is_domain(text)
    assert with_wires(POD, [DNSConfig(search_domains=[text])]) == POD
