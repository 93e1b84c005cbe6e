import errno
import struct

from hypothesis import given
from hypothesis import strategies as st

from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.kernel_errors import explain
from nsmesh.datapath.netlink import (
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    Batch,
    attribute,
    attributes,
    frames,
)
from nsmesh.datapath.netlink import _kernel_text as kernel_text
from nsmesh.datapath.packed import parse_prefix
from nsmesh.datapath.rtread import parse_link


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=8))
def test_attributes_come_back_as_they_went(values):
    """Any attributes, of any length, survive being written and read."""
    data = b"".join(attribute(kind, value) for kind, value in values.items())
    assert len(data) % 4 == 0
    assert attributes(data) == values


@given(st.binary(max_size=80))
def test_reading_never_runs_away(data):
    """Whatever bytes come, reading attributes ends and raises nothing."""
    attributes(data)
    list(frames(data))


@given(st.integers(1, 300))
def test_only_the_last_of_a_chunk_is_acknowledged(count):
    """A batch asks for one answer per send, and each message keeps its place and what it is about."""
    batch = Batch()
    for number in range(count):
        batch.put(rt.set_up(number + 1), number)
    seen = []
    for data, start in batch.chunks():
        found = list(frames(data))
        assert [bool(flags & NLM_F_ACK) for _, flags, *_ in found] == [False] * (len(found) - 1) + [True]
        assert start == len(seen)
        seen += [batch.about(data[at - 16 : end], start) for *_, at, end in found]
    assert seen == list(range(count)) == list(range(len(batch)))


def test_the_kernels_own_words_are_read():
    """NLMSGERR_ATTR_MSG stands behind the error number and the header of the request."""
    text = attribute(1, b"Nexthop has invalid gateway\0")
    capped = struct.pack("=iIHHII", -22, 36, 24, 1, 0, 0) + text
    whole = struct.pack("=iIHHII", -22, 38, 24, 1, 0, 0) + bytes(24) + text
    for error, flags in ((capped, NLM_F_ACK_TLVS | NLM_F_CAPPED), (whole, NLM_F_ACK_TLVS)):
        assert kernel_text(error, flags) == "Nexthop has invalid gateway"
    assert kernel_text(capped, NLM_F_CAPPED) == ""


def test_a_link_is_read_from_what_was_written():
    """Name, MAC, MTU and group of a request for a link are those that a reader finds."""
    message = rt.new_veth(
        (70000, "nsm-1", b"\2\0\0\0\0\1", 1400), (70001, "nse-1", b"\2\0\0\0\0\2", 0), 7, 99
    )
    link = parse_link(message[16:])
    assert (link.index, link.name, link.mac, link.mtu, link.group) == (
        70000,
        "nsm-1",
        b"\2\0\0\0\0\1",
        1400,
        99,
    )
    assert link.owner == ""
    assert link.ipv6 is None


def test_ipv6_addresses_skip_duplicate_detection():
    """IFA_F_NODAD is set for IPv6, and for IPv6 alone."""
    for text, flag in (("fd00::1/64", rt.IFA_F_NODAD), ("10.0.0.1/24", 0)):
        message = rt.address(70000, parse_prefix(text), add=True)
        assert rt.IFADDR.unpack_from(message[16:])[2] == flag


def test_every_refusal_says_what_to_do():
    """Any error number of the system becomes a MeshError with a remedy, and the kernel's words are kept."""
    for number in errno.errorcode:
        error = explain(number, "cannot do it", "kernel says so")
        assert error.what.startswith("cannot do it: ")
        assert "(kernel says so)" in error.what
        assert error.remedy
