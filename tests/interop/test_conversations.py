"""Ours in the place of each Go program, in the conversations that were recorded of them.

The player speaks all other roles. What ours sends is what was sent; what differs by nature or on purpose
stands in interop_rules, with the reason.
"""

from __future__ import annotations

import pytest
from interop_rules import BY_NATURE, NOT_PLAYED, ON_PURPOSE
from interop_spaces import NoNamespaces, namespaces
from interop_stage import played
from interop_trace import NAMES, load

PLAYS = [(name, role) for name in NAMES for role in load(name).roles() if (name, role) not in NOT_PLAYED]


@pytest.fixture(scope="module")
def spaces():
    """Network namespaces for all names of the recordings."""
    names = {name for trace in map(load, NAMES) for name in trace.inodes.values()}
    roles = {name.removeprefix("netns:") for name in names if name.startswith("netns:")}
    try:
        with namespaces(*roles) as found:
            yield found
    except NoNamespaces as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("name", "role"), PLAYS)
def test_ours_takes_the_place(name, role, spaces):
    """Each call, answer and event of ours is the recorded one, in its order and under its ids."""
    outcome = played(name, role, spaces)
    assert outcome.differences == []
    assert outcome.compared >= outcome.recorded > 0


def test_what_is_not_played_is_listed_with_a_reason():
    """A new recording is played, or somebody says why not; nothing is listed that does not exist."""
    everything = {(name, role) for name in NAMES for role in load(name).roles()}
    assert set(NOT_PLAYED) < everything
    assert set(PLAYS) == everything - set(NOT_PLAYED)
    assert all(NOT_PLAYED.values())


def test_every_difference_has_a_reason():
    """Whoever adds a difference says why, and for which recordings."""
    assert all(purpose.reason for purpose in ON_PURPOSE)
    assert all(BY_NATURE.values())
    assert {name for purpose in ON_PURPOSE for name in purpose.traces} <= set(NAMES)
