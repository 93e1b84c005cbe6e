"""Matches of a payload as OpenFlow has them, compared with bytes written by hand from its specification."""

import pytest

from nsmesh.datapath.ovs_matches import OXM_IN_PORT, PASSES, encoded
from nsmesh.datapath.ovs_openflow import both_ways
from nsmesh.model.messages import PAYLOADS


def test_a_port_alone():
    """Type 1, twelve bytes, one field of four, four bytes of padding."""
    assert encoded(((OXM_IN_PORT, 7),)).hex() == "0001000c800000040000000700000000"


def test_everything():
    """A match without a field has four bytes, and four of padding."""
    assert encoded(()).hex() == "0001000400000000"


def test_a_port_and_an_ethertype_without_a_tag():
    """Fields follow each other without padding between them: 24 bytes in all."""
    match = ((OXM_IN_PORT, 1), *PASSES["IP"][0])
    assert encoded(match).hex() == "00010018800000040000000180000c02000080000a020800"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_each_payload_has_flows_both_ways(payload):
    """As many each way, each with a length that is a multiple of eight, as messages of OpenFlow have."""
    flows = both_ways("w1", 1, 2, payload)
    assert len(flows) == 2 * len(PASSES[payload])
    for flow in flows:
        assert int.from_bytes(flow[2:4], "big") == len(flow)
        assert len(flow) % 8 == 0
