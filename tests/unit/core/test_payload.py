"""Payloads by name."""

import pytest

from nsmesh.core.errors import Invalid
from nsmesh.core.payload import check_payload
from nsmesh.model.messages import PAYLOADS, Connection


@pytest.mark.parametrize("payload", ["", *PAYLOADS])
def test_known_payloads_pass(payload):
    """An empty one means IP."""
    check_payload(Connection(payload=payload))


@pytest.mark.parametrize(
    ("payload", "remedy"),
    [("ETHERNETT", "did you mean ETHERNET"), ("mpls", "did you mean MPLS"), ("X", "there are")],
)
def test_another_one_is_refused_in_a_sentence(payload, remedy):
    """It names the service, the payload, and what there is."""
    with pytest.raises(Invalid, match=f"s has payload '{payload}', and no wire here carries that") as caught:
        check_payload(Connection(network_service="s", payload=payload))
    assert remedy in caught.value.remedy
