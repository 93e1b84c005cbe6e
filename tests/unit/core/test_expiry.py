"""EXPIRES: the first of a call's credentials to run out."""

from __future__ import annotations

from nsmesh.core.call import Call
from nsmesh.core.expiry import EXPIRES, limited


def test_the_earlier_counts():
    """Whoever adds a limit can only shorten; a call without any has none."""
    assert Call().get(EXPIRES) is None
    assert limited(Call(), 30.0).get(EXPIRES) == 30.0
    assert limited(limited(Call(), 30.0), 40.0).get(EXPIRES) == 30.0
    assert limited(limited(Call(), 40.0), 30.0).get(EXPIRES) == 30.0
