"""When to refresh."""

import pytest

from nsmesh.model.messages import Path, PathSegment
from nsmesh.model.refresh import refresh_delay
from nsmesh.model.times import timestamp


def path(index, *expiries):
    return Path(
        index=index,
        path_segments=[
            PathSegment(expires=timestamp(expiry)) if expiry is not None else PathSegment()
            for expiry in expiries
        ],
    )


@pytest.mark.parametrize(
    ("index", "expiries", "delay"),
    [
        (0, (1600.0,), 200.0),
        (0, (1600.0, 1600.0), 120.0),
        (0, (90000.0, 1600.0, 90000.0, 90000.0), 120.0),
        (1, (1600.0, 1600.0, 1600.0, 1600.0), 150.0),
        (3, (1600.0, 1600.0, 1600.0, 1600.0), 210.0),
        (0, (None, 1600.0), 120.0),
        (0, (1600.0, 500.0), 0.0),
        (0, (None,), None),
        (0, (), None),
    ],
)
def test_the_formula_of_the_field(index, expiries, delay):
    """0.2 + 0.2 index/segments of the shortest life, a third for one segment, at once when it is over."""
    found = refresh_delay(path(index, *expiries), now=1000.0)
    assert found == (None if delay is None else pytest.approx(delay))
