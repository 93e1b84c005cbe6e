"""Durations: Go's syntax in, seconds out, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600.0),
        ("750ms", 0.75),
        ("1h30m", 5400.0),
        ("0", 0.0),
        ("0s", 0.0),
        ("-1.5s", -1.5),
        ("+2s", 2.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("3us", 3e-6),
        ("3µs", 3e-6),
        ("1ns", 1e-9),
        ("1h2m3s4ms", 3723.004),
    ],
)
def test_parse(text, seconds):
    """Each unit and form of Go is understood."""
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    "text", ["", "-", "10", "m", "1x", "1h30", " 1s", "1 s", ".s", "1e3s", "9999999h", "--1s"]
)
def test_refused(text):
    """What Go refuses is refused, with what to write."""
    with pytest.raises(ValueError, match=r"write|add|units|longer"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (600, "10m0s"),
        (5400, "1h30m0s"),
        (0.75, "750ms"),
        (1.5, "1.5s"),
        (3e-6, "3µs"),
        (-90, "-1m30s"),
        (3600, "1h0m0s"),
    ],
)
def test_format(seconds, text):
    """Durations are written as Go writes them."""
    assert format_duration(seconds) == text


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_round_trip(nanoseconds):
    """What is written is read as the same duration, to the nanosecond."""
    seconds = nanoseconds / 10**9
    assert round(parse_duration(format_duration(seconds)) * 10**9) == round(seconds * 10**9)
