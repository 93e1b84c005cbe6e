"""What SPIRE's agent is sent, as its own definition of the API has it: method, field, number."""

from nsmesh.chains.delegated_client import BUNDLES, SVIDS, asked_for

API = "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/"


def test_both_ways_to_ask_have_one_method():
    """A process is named in the request: there is no method of its own for that."""
    assert SVIDS == API + "SubscribeToX509SVIDs"
    assert BUNDLES == API + "SubscribeToX509Bundles"


def test_a_process_is_the_second_field():
    """The first one holds selectors: what stands there would be read as those."""
    assert asked_for(300, ()) == bytes([0x10, 0xAC, 0x02])


def test_selectors_are_named_instead_of_a_process():
    """SPIRE refuses a request with both, and one with neither; a value may have colons of its own."""
    body = asked_for(300, ["k8s:ns:a", "k8s:pod-label:app:web"])
    first, second = b"\n\x03k8s\x12\x04ns:a", b"\n\x03k8s\x12\x11pod-label:app:web"
    assert body == b"\n" + bytes([len(first)]) + first + b"\n" + bytes([len(second)]) + second
