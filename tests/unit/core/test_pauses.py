"""Pauses between tries."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.pauses import GROWTH, JITTER, pauses


@given(st.floats(0.01, 5.0), st.floats(5.0, 100.0))
def test_pauses_begin_at_the_first_and_are_bounded(first, longest):
    """None is shorter than the first, none longer than the longest with its jitter; they grow in between."""
    some = list(islice(pauses(first, longest), 40))
    assert all(first <= pause <= longest * (1 + JITTER) for pause in some)
    assert some[0] <= first * (1 + JITTER)
    assert some[-1] >= longest or some[-1] >= first * GROWTH**39


def test_those_who_failed_together_try_apart():
    """Two waiters do not get the same pause."""
    assert len({next(pauses(0.2, 2.0)) for _ in range(50)}) > 40
