"""Network service URLs: the grammar, its errors, and the way back to text."""

from __future__ import annotations

import string
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.names import interface_problem
from nsmesh.model.nsurl import (
    ON_A_HOST,
    NetworkServiceUrl,
    NsUrlError,
    generate_interface_name,
    parse,
    parse_list,
)


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("kernel://icmp-responder/nsm-1", NetworkServiceUrl("KERNEL", "icmp-responder", "nsm-1")),
        ("kernel://icmp-responder", NetworkServiceUrl("KERNEL", "icmp-responder")),
        ("kernel://icmp-responder/", NetworkServiceUrl("KERNEL", "icmp-responder")),
        ("KERNEL://a", NetworkServiceUrl("KERNEL", "a")),
        (
            "vfio://svc?sriovToken=worker.domain/10G",
            NetworkServiceUrl("VFIO", "svc", "", {"sriovToken": "worker.domain/10G"}),
        ),
        (
            "kernel://svc@my.cluster2/nsm-1?app=x",
            NetworkServiceUrl("KERNEL", "svc@my.cluster2", "nsm-1", {"app": "x"}),
        ),
        ("memif://a?x=1&x=2&y", NetworkServiceUrl("MEMIF", "a", "", {"x": "1,2", "y": ""})),
        ("kernel://a?x=a+b%2Cc", NetworkServiceUrl("KERNEL", "a", "", {"x": "a b,c"})),
        ("memif://a/a-name-of-more-than-15", NetworkServiceUrl("MEMIF", "a", "a-name-of-more-than-15")),
    ],
)
def test_parse(text, wish):
    """Each form of the grammar gives its record."""
    assert parse(text) == wish


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("icmp-responder/nsm-1", 1, "write kernel://icmp-responder/nsm-1"),
        ("kernel:a", 1, "write kernel://a"),
        ("kernel:/a", 1, "write kernel://a"),
        ("kernal://a", 1, "did you mean kernel://"),
        ("ssh://a", 1, "begin with one of"),
        ("kernel:///nsm-1", 10, "write kernel://SERVICE"),
        ("kernel://", 10, "has no name"),
        ("kernel://@x", 10, "has no name"),
        ("kernel://a@", 12, "registry domain has no name"),
        ("kernel://a@b@c", 13, "'@'"),
        ("kernel://a_b c/x", 13, "' '"),
        ("kernel://a:80/x", 11, "port"),
        ("kernel://-a", 10, "begins or ends"),
        ("kernel://a/interface-too-long", 12, "has 18 characters"),
        ("kernel://a/b/c", 12, "'/'"),
        ("kernel://a/b%", 13, "two hex digits"),
        ("kernel://a?=x", 12, "has no name"),
        ("kernel://a?x=1;y=2", 15, "';'"),
        ("kernel://a?x=%ff", 14, "UTF-8"),
        ("kernel://a?x=a b", 15, "' '"),
        ("kernel://a#b", 11, "'#'"),
    ],
)
def test_errors(text, position, says):
    """An error has the place, what is wrong there, and what to write."""
    with pytest.raises(NsUrlError) as caught:
        parse(text)
    assert caught.value.position == position
    assert says in str(caught.value)
    assert caught.value.remedy


def test_list():
    """Commas separate, blanks and line ends around do not count, nothing is nothing."""
    assert [wish.service for wish in parse_list("kernel://a/x,\n kernel://b/y , memif://c")] == [
        "a",
        "b",
        "c",
    ]
    assert parse_list("") == parse_list("  ") == []


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("kernel://a,kernal://b", 12, "kernel://"),
        ("kernel://a, kernel://b?x=1;2", 27, "';'"),
        ("kernel://a,,kernel://b", 12, "comma"),
        ("kernel://a,", 11, "comma"),
        ("kernel://a/nsm-1,kernel://b/nsm-1", 18, "'nsm-1' is asked for twice, for 'a' and for 'b'"),
    ],
)
def test_list_errors(text, position, says):
    """Positions count in the whole text; one interface name cannot serve two wires."""
    with pytest.raises(NsUrlError, match=says) as caught:
        parse_list(text)
    assert caught.value.position == position


def test_another_mechanism():
    """A plug-in's mechanism is known when the caller says so."""
    assert parse("snow-flake://a", mechanisms=("SNOW_FLAKE",)).mechanism == "SNOW_FLAKE"
    assert parse("vhost-user://a").mechanism == "VHOST_USER"


names = st.from_regex(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,20}[A-Za-z0-9])?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
interfaces = texts.filter(lambda name: name == "" or not interface_problem(name))
wishes = st.builds(
    NetworkServiceUrl,
    st.sampled_from(ON_A_HOST),
    st.one_of(names, st.builds("{}@{}".format, names, names)),
    interfaces,
    st.dictionaries(texts.filter(bool), texts, max_size=4),
)


@given(wishes)
def test_round_trip(wish):
    """The text of any record parses to an equal record, alone and in a list."""
    assert parse(str(wish)) == wish
    assert parse_list(f"{wish},memif://other") == [wish, NetworkServiceUrl("MEMIF", "other")]


@given(st.text(max_size=60))
def test_any_text(text):
    """Any text is parsed or refused with a position inside of it; nothing else happens."""
    error = None
    try:
        wishes = parse_list(text)
    except NsUrlError as caught:
        error = caught
    if error:
        assert 1 <= error.position <= len(text) + 1
    else:
        assert parse_list(",".join(str(wish) for wish in wishes)) == wishes


@given(st.text(max_size=40), st.randoms(use_true_random=False))
def test_generated_interface_names(service, random):
    """A generated name is valid, has 15 characters, and begins with the first ten of the service."""
    name = generate_interface_name(service, random)
    assert interface_problem(name) == ""
    assert len(name) == 15
    head, _, tail = name.rpartition("-")
    assert len(head) == min(10, len(service))
    assert set(tail) <= set(string.ascii_letters + string.digits)


def test_generated_interface_name_of_the_field():
    """A long service name is cut to ten characters, as the field does."""
    assert generate_interface_name("icmp-responder", Random(1)).startswith("icmp-respo-")
