"""Points in time on the wire."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.times import from_rfc3339, rfc3339, seconds, timestamp


@given(st.floats(min_value=0, max_value=4e9))
def test_times_survive_the_wire(moment):
    """To a Timestamp and to text and back, a time changes by less than two microseconds."""
    assert abs(seconds(timestamp(moment)) - moment) < 2e-6
    assert abs(from_rfc3339(rfc3339(moment)) - moment) < 2e-6


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2026-11-23T12:11:40Z", 1795435900.0),
        ("2026-11-23T13:11:40+01:00", 1795435900.0),
        ("2026-11-23T07:41:40.5-04:30", 1795435900.5),
        ("2026-11-23t12:11:40.123456789z", 1795435900.123456789),
    ],
)
def test_the_forms_of_the_field_are_read(text, moment):
    """With and without decimals, in UTC and with an offset."""
    assert from_rfc3339(text) == pytest.approx(moment, abs=1e-6)


@pytest.mark.parametrize("text", ["", "now", "2026-11-23", "2026-11-23T12:11:40", "2026-13-01T00:00:00Z"])
def test_anything_else_is_refused(text):
    """Text that is no time is a ValueError."""
    with pytest.raises(ValueError, match=r"time|month"):
        from_rfc3339(text)


def test_text_has_nine_decimals_and_utc():
    """The form that is written."""
    assert rfc3339(1795435900.25) == "2026-11-23T12:11:40.250000000Z"
    assert timestamp(1.5) == Timestamp(seconds=1, nanos=500_000_000)
