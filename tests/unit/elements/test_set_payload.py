"""SetPayload."""

from __future__ import annotations

import pytest

from nsmesh.core.call import Call
from nsmesh.core.element import chain
from nsmesh.core.virtual import run
from nsmesh.elements.set_payload import SetPayload
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint


@pytest.mark.parametrize(("given", "stored"), [("", "IP"), ("IP", "IP"), ("ETHERNET", "ETHERNET")])
def test_an_empty_payload_becomes_ip(given, stored):
    """On Register, and only where none was named."""
    answer = run(chain(SetPayload()).register(Call(), NetworkService(name="s", payload=given)))
    assert answer.payload == stored


def test_endpoints_have_no_payload():
    """An endpoint passes as it is."""
    entry = NetworkServiceEndpoint(name="e")
    assert run(chain(SetPayload()).register(Call(), entry)) == NetworkServiceEndpoint(name="e")
