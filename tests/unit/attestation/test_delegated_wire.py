"""What SPIRE's agent is sent, as its own definition of the API has it: method, field, number."""

from nsmesh.api import delegated_pb2
from nsmesh.chains.delegated_client import BUNDLES, SVIDS

API = "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/"


def test_both_ways_to_ask_have_one_method():
    """A process is named in the request: there is no method of its own for that."""
    assert SVIDS == API + "SubscribeToX509SVIDs"
    assert BUNDLES == API + "SubscribeToX509Bundles"


def test_a_process_is_the_second_field():
    """The first one holds selectors: what stands there would be read as those."""
    assert delegated_pb2.SubscribeToX509SVIDsRequest(pid=300).SerializeToString() == bytes([0x10, 0xAC, 0x02])
