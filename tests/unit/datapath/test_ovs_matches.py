"""Matches of a payload as OpenFlow has them, compared with bytes written by hand from its specification."""

import struct

import pytest

from nsmesh.datapath.ovs_matches import OXM_IN_PORT, PASSES, REFUSES, encoded
from nsmesh.datapath.ovs_openflow import PRIORITY, REFUSAL, both_ways, cookie_of, refused
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
    """As many each way, each with a length that is a multiple of eight, as messages of OpenFlow have.

    Where not all passes, there is one for each kind of frame that may be refused, below all of those.
    """
    flows = both_ways("w1", 1, 2, payload)
    refusing = 0 if payload == "ETHERNET" else sum(map(len, REFUSES.values()))
    assert len(flows) == 2 * (len(PASSES[payload]) + refusing)
    assert all(priority < PRIORITY for priority in REFUSAL.values())
    for flow in flows:
        assert int.from_bytes(flow[2:4], "big") == len(flow)
        assert len(flow) % 8 == 0


def test_any_frame_has_one_kind_alone():
    """Kinds have priorities of their own, and the last one takes what no other does."""
    assert len(set(REFUSAL.values())) == len(REFUSES)
    assert min(REFUSAL, key=REFUSAL.get) == "other"
    assert REFUSES["other"] == ((),)


def flow(cookie, priority, packets):
    """Return the statistics of a flow with an empty match and 8 bytes of instructions."""
    head = struct.pack("!HBBIIHHHH4x", 64, 0, 0, 5, 0, priority, 0, 0, 0)
    return (
        head
        + struct.pack("!QQQ", cookie, packets, 60 * packets)
        + bytes.fromhex("0001000400000000")
        + bytes(8)
    )


def test_counters_are_read_from_replies():
    """Flows of one kind are added up, those that let pass are not; broken ends are left."""
    head = struct.pack("!HH4x", 1, 0)
    mine, other = cookie_of("w1"), cookie_of("w2")
    one = head + flow(mine, REFUSAL["ipv4"], 3) + flow(mine, PRIORITY, 99) + flow(mine, REFUSAL["ipv4"], 4)
    two = (
        head + flow(mine, REFUSAL["vlan"], 1) + flow(other, REFUSAL["arp"], 2) + flow(mine, 50, 0) + bytes(9)
    )
    assert refused([one, two]) == {mine: {"ipv4": 7, "vlan": 1}, other: {"arp": 2}}
    assert refused([b"", bytes(8), head + bytes(40)]) == {}
