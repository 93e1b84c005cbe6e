"""Memif's messages, rings and answers: what holds for any bytes."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.datapath.memif.answers import Answers, checksum
from nsmesh.datapath.memif.messages import (
    ACK,
    CONNECT,
    CONNECTED,
    AddRegion,
    AddRing,
    Bare,
    Disconnect,
    Hello,
    Init,
    ProtocolError,
    decode,
    encode,
)
from nsmesh.datapath.memif.rings import Ring, Slot, new_region, ring_size

MAC = "02:00:00:00:00:01"
WORDS = st.integers(0, 65535)
NAMES = st.text("abc-", max_size=31)
MESSAGES = st.one_of(
    st.builds(Hello, NAMES, WORDS, WORDS, st.integers(0, 255)),
    st.builds(Init, st.integers(0, (1 << 32) - 1), NAMES),
    st.builds(AddRegion, WORDS, st.integers(0, (1 << 64) - 1)),
    st.builds(AddRing, WORDS, WORDS, st.integers(0, (1 << 32) - 1), st.integers(0, 255), st.booleans()),
    st.builds(Bare, st.sampled_from([CONNECT, CONNECTED]), NAMES),
    st.just(Bare(ACK)),
    st.builds(Disconnect, NAMES),
)


@given(MESSAGES)
def test_messages_are_read_as_they_were_written(message):
    """Each has 128 bytes, and says the same afterwards."""
    assert len(encode(message)) == 128
    assert decode(encode(message)) == message


@given(st.binary(max_size=200) | st.binary(min_size=128, max_size=128))
def test_any_bytes_are_a_message_or_refused(data):
    """Nothing else than ProtocolError comes out."""
    try:
        decode(data)
    except ProtocolError:
        return
    assert len(data) == 128


@given(st.binary(min_size=512, max_size=512), st.booleans())
def test_a_ring_of_any_bytes_is_read_or_refused(data, owned):
    """Whatever the other side writes, only its memory is read, and at most a ring full of frames comes."""
    descriptor, memory = new_region(4096)
    try:
        memory[:512] = data
        ring = Ring({0: memory}, 0, 0, 4)
        buffers = [Slot(0, 1024 + index * 64, 64) for index in range(16)]
        for work in (
            lambda: ring.take(owned=owned, buffers=buffers),
            lambda: ring.give([b"x" * 100], owned=owned, buffers=buffers),
        ):
            try:
                work()
            except ProtocolError:
                continue
        ring.release()
    finally:
        memory.close()
        os.close(descriptor)


def test_a_ring_header_is_two_cache_lines():
    """The head has its own cache line, the tail another, and then come 16 bytes for each slot."""
    assert ring_size(10) == 128 + 16 * 1024


@given(st.binary(max_size=200))
def test_any_frame_is_answered_or_dropped(data):
    """Broken frames raise nothing."""
    answers = Answers(MAC, ["10.0.0.1/32", "fd00::1/128"])
    for kind in (b"\x08\x06", b"\x08\x00\x45", b"\x86\xdd\x60"):
        answers(bytes.fromhex("020000000001020000000002") + kind + data)


def ping4(payload):
    icmp = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + payload
    icmp = icmp[:2] + checksum(icmp).to_bytes(2, "big") + icmp[4:]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), 0, 0, 64, 1, 0, b"\n\0\0\2", b"\n\0\0\1")
    return bytes.fromhex("0200000000010200000000020800") + head + icmp


@given(st.binary(max_size=1400))
def test_an_echo_comes_back_with_its_payload(payload):
    """Checksums are right, addresses are swapped, the payload is the same."""
    answer = Answers(MAC, ["10.0.0.1/32"])(ping4(payload))
    assert answer[:12] == bytes.fromhex("020000000002020000000001")
    assert checksum(answer[14:34]) == 0
    assert checksum(answer[34:]) == 0
    assert answer[26:34] == b"\n\0\0\1\n\0\0\2"
    assert answer[34:36] == b"\0\0"
    assert answer[42:] == payload


@pytest.mark.parametrize(("asked", "answered"), [(b"\n\0\0\1", True), (b"\n\0\0\3", False)])
def test_arp_is_answered_for_own_addresses(asked, answered):
    """Who asks for another address hears nothing."""
    request = bytes.fromhex("ffffffffffff0200000000020806" + "0001080006040001" + "020000000002")
    answer = Answers(MAC, ["10.0.0.1/32"])(request + b"\n\0\0\2" + bytes(6) + asked)
    assert (answer is not None) is answered
    if answer is not None:
        assert (
            answer[14:] == bytes.fromhex("0001080006040002020000000001") + asked + request[6:12] + b"\n\0\0\2"
        )


def test_a_neighbour_solicitation_is_answered():
    """With the MAC, hop limit 255 and a right checksum."""
    own, theirs = bytes.fromhex("fd" + "00" * 14 + "01"), bytes.fromhex("fd" + "00" * 14 + "02")
    message = struct.pack("!BBHI", 135, 0, 0, 0) + own
    packet = struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + theirs + own + message
    answer = Answers(MAC, ["fd00::1/128"])(bytes.fromhex("33330000000102000000000286dd") + packet)
    assert answer[21] == 255
    assert answer[54] == 136
    assert answer[-6:].hex() == "020000000001"
    body = answer[54:]
    assert checksum(own + theirs + struct.pack("!II", len(body), 58) + body) == 0
