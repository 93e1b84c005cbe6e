"""Names: what is refused, and what is proposed instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.names import interface_problem, name_problem, name_suggestion, nearest


@pytest.mark.parametrize("name", ["a", "secure-intranet", "nse.1", "9", "a" * 63, "firewall-1.node-2"])
def test_good_names(name):
    """DNS-1123 names pass."""
    assert name_problem(name) == ""


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("Secure_Intranet", "secure-intranet"),
        ("-a-", "a"),
        ("a..b", "a.b"),
        ("a" * 64, "a" * 63),
        ("", ""),
        ("Ä", ""),
        ("a b", "a-b"),
    ],
)
def test_bad_names(name, suggestion):
    """Other names are refused and the nearest good one is proposed."""
    assert name_problem(name)
    assert name_suggestion(name) == suggestion


@given(st.text(max_size=80))
def test_suggestions_are_good(name):
    """A suggestion is a valid name or nothing; a valid name is its own suggestion."""
    suggestion = name_suggestion(name)
    assert suggestion == "" or name_problem(suggestion) == ""
    if not name_problem(name):
        assert suggestion == name


@pytest.mark.parametrize("name", ["nsm-1", "eth0", "a" * 15, "icmp-respo-4fYz"])
def test_good_interfaces(name):
    """Names that the kernel takes pass."""
    assert interface_problem(name) == ""


@pytest.mark.parametrize("name", ["", ".", "..", "a" * 16, "a/b", "a:b", "a b", "a%d", "a\n", "€€€€€€"])
def test_bad_interfaces(name):
    """Names that the kernel refuses are refused."""
    assert interface_problem(name)


def test_nearest():
    """A slip of the pen finds the word; another spelling finds it for sure; a stranger finds nothing."""
    known = ["destination_selector", "weight"]
    assert nearest("destination_selectors", known) == "destination_selector"
    assert nearest("destinationSelector", known) == "destination_selector"
    assert nearest("Weight", known) == "weight"
    assert nearest("colour", known) == ""
