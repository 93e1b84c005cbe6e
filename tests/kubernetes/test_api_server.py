"""The API server that the other tests use."""

from __future__ import annotations


def test_a_namespace_of_ones_own(api_server, api_namespace):
    """The server answers, and the test's namespace is there."""
    assert api_namespace in api_server.kubectl("get", "namespaces", "-o", "name")
