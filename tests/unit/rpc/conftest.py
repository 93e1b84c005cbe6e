"""Fixtures of the rpc tests."""

import pytest


@pytest.fixture(params=["ng", "h2"])
def engine(request):
    """Run the test with either HTTP/2 engine."""
    return request.param
