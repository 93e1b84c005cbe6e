"""Gratuitous ARP and unsolicited neighbour advertisements: captured on the wire, and believed by a kernel."""

import json
import socket
import struct
import time
from dataclasses import replace

import datapath_lab as lab
import kinds_lab
import pytest
from kinds_lab import KINDS

from nsmesh.datapath import netns
from nsmesh.datapath.announcing import announce_often
from nsmesh.model.messages import IP

pytestmark = pytest.mark.root

STALE = "02:00:00:00:00:99"


def capture(space, name):
    """Return a socket that hears what comes in at an interface, whole frames."""

    def opened():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.bind((name, 3))
        sock.settimeout(0.3)
        return sock

    return netns.call_in(space, opened)


def heard(sock):
    """Return the frames of ARP and of neighbour advertisements that have come."""
    found = []
    limit = time.monotonic() + 5
    while time.monotonic() < limit:
        try:
            frame, (*_, direction, _kind, _mac) = sock.recvfrom(2048)
        except TimeoutError:
            break
        if direction == socket.PACKET_OUTGOING:
            continue
        if frame[12:14] == b"\x08\x06" or (frame[12:14] == b"\x86\xdd" and frame[54] == 136):
            found.append(frame)
    return found


def known(space):
    listed = json.loads(lab.run(space, "ip", "-json", "neigh", "show", "dev", "nse-1") or "[]")
    return {row["dst"]: row.get("lladdr") for row in listed}


@pytest.fixture(params=KINDS)
def with_wire(request, tmp_path):
    """Run a scenario with a driver that has one wire; return its answer, and the MAC of the client's end."""

    def work(scenario, wire, a, b):
        async def main(datapath):
            await datapath.apply(wire)
            mac = lab.link(a, "nsm-1")["address"]
            return await scenario(datapath), mac

        return kinds_lab.run(main, request.param, tmp_path, a, b)

    return work


def test_neighbours_that_know_another_place_are_put_right(with_wire):
    """A neighbour table with an older MAC has the right one after one announcement, in both IP versions."""
    with lab.spaces() as (a, b):

        async def scenario(datapath):
            for address in ("10.0.1.1", "fd00:1::1"):
                lab.run(b, "ip", "neigh", "replace", address, "lladdr", STALE, "dev", "nse-1", "nud", "stale")
            assert set(known(b).values()) == {STALE}
            with capture(b, "nse-1") as sock:
                datapath.announce("w1")
                return heard(sock), known(b)

        (frames, neighbours), mac = with_wire(scenario, lab.simple(a, b), a, b)
        assert neighbours == {"10.0.1.1": mac, "fd00:1::1": mac}
        arp, advertisement = frames
        own = bytes.fromhex(mac.replace(":", ""))
        assert arp[:12] == b"\xff" * 6 + own
        assert struct.unpack("!HHBBH6s4s6s4s", arp[14:42])[5:] == (
            own,
            b"\x0a\0\1\1",
            bytes(6),
            b"\x0a\0\1\1",
        )
        assert advertisement[:12] == bytes.fromhex("333300000001") + own
        assert advertisement[58] & 0xE0 == 0x20  # override alone: neither router nor solicited
        assert advertisement[62:78] == socket.inet_pton(socket.AF_INET6, "fd00:1::1")
        assert advertisement[78:] == b"\x02\x01" + own


def test_it_is_said_three_times_and_only_where_frames_pass(with_wire):
    """Whoever is made a moment later hears it too; a wire of payload IP has no link addresses to tell."""

    async def scenario(datapath):
        with capture(b, "nse-1") as sock:
            await announce_often(datapath, "w1")
            datapath.announce("unknown")
            return heard(sock)

    with lab.spaces() as (a, b):
        assert len(with_wire(scenario, lab.simple(a, b), a, b)[0]) == 6
    with lab.spaces() as (a, b):
        assert with_wire(scenario, replace(lab.simple(a, b), payload=IP), a, b)[0] == []


def test_an_end_that_is_gone_is_no_error(with_wire):
    """The wire may be lost by then."""

    async def scenario(datapath):
        lab.run(a, "ip", "link", "del", "nsm-1")
        datapath.announce("w1")
        return True

    with lab.spaces() as (a, b):
        assert with_wire(scenario, lab.simple(a, b), a, b)[0]
