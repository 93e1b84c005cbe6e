"""When a promise counts as kept."""

import pytest

from nsmesh.chaos.outcomes import Outcome
from nsmesh.chaos.scenarios import NAMES

KILL = NAMES["local-nsmgr-kill"]
CUT = NAMES["local-client-interfacedown"]


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        ([0.5], True),
        ([1.5], False),
        ([0.5] * 9 + [1.5], True),
        ([0.5] * 19 + [1.5], True),
        ([0.5] * 18 + [1.5] * 2, False),
        ([], False),
    ],
)
def test_one_slow_repetition_in_twenty_breaks_nothing(times, kept):
    """The time counts at the median, and for all but one in twenty."""
    assert Outcome("x", KILL, "stream", recovery=times).kept is kept


@pytest.mark.parametrize("bad", [{"lost": 1}, {"changed": ["x"]}, {"leaks": ["x"]}, {"given_up": 1}])
def test_all_else_counts_every_time(bad):
    """One lost packet, change, leak or mesh that never was well breaks the promise."""
    assert not Outcome("x", KILL, "stream", recovery=[0.5] * 20, **bad).kept


def test_a_wire_that_is_harmed_may_lose_packets():
    """There the promise is of the time alone."""
    assert Outcome("x", CUT, "stream", recovery=[0.1], lost=500).kept
    assert not Outcome("x", CUT, "stream", recovery=[0.4], lost=500).kept
