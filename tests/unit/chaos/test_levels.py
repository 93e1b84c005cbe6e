"""Levels before and after a soak, and slopes of memory over lives."""

import math

from hypothesis import given
from hypothesis import strategies as st

from nsmesh.chaos.levels import GROWTH, SPARE, Held, Level, Sample, slope, unlevel


def level(memory=1 << 20, descriptors=10, threads=1, kernel=("namespace a",), **others):
    return Level({"nsmgr": Held(1, memory, descriptors, threads), **others}, frozenset(kernel))


def test_the_same_is_level():
    """Nothing is told where nothing is more than the spare."""
    assert unlevel(level(), level()) == []
    assert unlevel(level(), level(memory=(1 << 20) + GROWTH, descriptors=10 + SPARE)) == []


def test_each_kind_of_growth_is_told():
    """Memory, descriptors, threads, processes and what the kernel has are each told by name."""
    after = level(memory=(2 << 20) + GROWTH, descriptors=20, threads=99, kernel=("namespace b",))
    text = "\n".join(unlevel(level(), after))
    for words in ("20 descriptors", "99 threads", "KiB", "namespace a is gone", "namespace b is new"):
        assert words in text
    assert unlevel(level(), Level({}, frozenset(("namespace a",)))) == ["nsmgr is gone"]
    assert unlevel(level(), level(alpha=Held(2, 1, 1, 1))) == ["alpha is new"]


@given(st.integers(-1000, 1000), st.lists(st.integers(0, 10**6), min_size=1, max_size=4))
def test_lives_have_a_slope_in_common(rate, starts):
    """However large each process was at first, the slope is that of all."""
    samples = [
        Sample(pid, 100.0 * pid + t, first + rate * t) for pid, first in enumerate(starts) for t in range(10)
    ]
    assert math.isclose(slope(samples, youth=3.0), rate, abs_tol=1e-6)


def test_too_short_a_life_has_no_slope():
    """What is only young says nothing."""
    assert math.isnan(slope([Sample(1, float(t), t) for t in range(5)], youth=10.0))
