"""The text of a resolver file that names a server of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.resolver_text import HEADER, domains, is_domain, is_server, original, servers, with_server

POD = "# by hand\nnameserver 10.96.0.10\nsearch ns.svc.cluster.local cluster.local\noptions ndots:5\n"
OURS = "127.0.0.1"


def read(text):
    """Return what a resolver reads: comments mean nothing."""
    return [line for line in text.split("\n") if line and not line.startswith("#")]


def test_our_server_is_the_only_one_and_options_stay():
    """Some resolvers ask all servers at once; the pod's own domains are searched before those of wires."""
    assert read(with_server(POD, OURS, ["red.example"])) == [
        "nameserver 127.0.0.1",
        "search ns.svc.cluster.local cluster.local red.example",
        "options ndots:5",
    ]


@given(st.text(st.characters(codec="utf-8")))
def test_any_original_comes_back_to_the_byte(before):
    """Also one without a last line end, without lines, or with what nobody expects in such a file."""
    before = before.removeprefix(HEADER)
    assert original(before) == before
    text = with_server(before, OURS, ["red.example"])
    assert original(text) == before
    assert original(text + "\n\n\n") == before
    assert servers(text) == [OURS]


def test_each_domain_stands_once():
    """Two wires to one service, and a domain that the pod searches already, are not doubled."""
    text = with_server(POD, OURS, ["red.example", "cluster.local", "red.example"])
    assert "search ns.svc.cluster.local cluster.local red.example" in read(text)


def test_a_domain_line_is_a_list_of_one():
    """resolv.conf(5): search and domain exclude each other, the last wins; so there is one line then."""
    assert domains("search a b\ndomain c\n") == ["c"]
    assert read(with_server("search a b\ndomain c\n", OURS, ["red.example"])) == [
        "nameserver 127.0.0.1",
        "search c red.example",
    ]


@pytest.mark.parametrize(
    "text", ["", "host.example", "10.0.0.1 10.0.0.2", "10.0.0.1\noptions debug", "fe80::1%a b"]
)
def test_what_is_no_address_is_told_apart(text):
    """An endpoint cannot write lines of its own."""
    assert not is_server(text)


@pytest.mark.parametrize(
    "text", ["", "a b", "a\nnameserver 10.6.6.6", "a\n", "-a", "ä.example", "#a", "a" * 300]
)
def test_what_is_no_domain_never_gets_into_the_file(text):
    """Likewise."""
    assert not is_domain(text)
    assert with_server(POD, OURS, [text]) == with_server(POD, OURS, [])
